"""Measurements against peers; each module is a command: `python -m benchmarks.attention`."""
