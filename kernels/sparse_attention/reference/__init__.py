"""Readable implementations in plain torch, one file for each kind of layout; also the path on a CPU."""
