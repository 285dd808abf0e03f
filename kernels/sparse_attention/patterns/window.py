"""Sliding attention window: each query sees the tokens around it."""

from ..layouts import IndexList
from .dilated import dilated


def window(num_tokens: int, *, window: int, causal: bool = False) -> IndexList:
    """Each query sees itself and `window` positions on each side, or only those before it when `causal`.

    Positions outside the sequence are empty slots. The table holds num_tokens x (2 window + 1) positions.

    Raises ValueError for num_tokens below 1 or window below 0.
    """
    return dilated(num_tokens, window=window, dilations=(1,), causal=causal)
