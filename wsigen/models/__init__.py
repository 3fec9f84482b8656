"""Bundles: cards, checks, and networks behind a NumPy interface; mask models."""
