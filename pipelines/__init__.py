"""The papers, end to end, on the public API: python -m pipelines.NAME."""
