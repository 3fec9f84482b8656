"""The figures wsigen promises, each a ratio measured within one run: ``python -m benchmarks``."""
