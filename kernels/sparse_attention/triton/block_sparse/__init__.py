"""Attention over block sparse lists: forward and backward on tensor cores, without atomics, sums in float32."""

from torch import Tensor

MOST_HEAD_DIM = {2: 512, 4: 256}
"""By bytes of an element: accumulators of wider heads do not fit the registers of one program."""


def why_not(q: Tensor) -> str | None:
    """Why these kernels cannot take heads such as those of q (b, h, n, d), or None when they can."""
    most = MOST_HEAD_DIM[q.dtype.itemsize]
    if q.shape[-1] > most:
        name = str(q.dtype).removeprefix("torch.")
        return f"head_dim {q.shape[-1]} is more than the {most} of {name} whose sums fit the registers of a program"
    return None
