"""Sweeps: many runs in one folder, each in a process of its own, none of them lost, and one comparison at the end."""
