"""Attention over an index list: forward and backward without atomics, in float32 arithmetic."""
