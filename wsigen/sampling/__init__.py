"""The mathematics of sampling: one readable function per equation, numpy only."""
