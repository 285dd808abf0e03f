"""The figures of a report, one idea a file; each is None where the runs have nothing to draw it from."""
