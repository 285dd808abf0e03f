"""Sliding attention window: each query sees the tokens around it."""

from ..layouts import Layout
from ..rules import Choice
from .dilated import dilated


def window(
    num_tokens: int, *, window: int, causal: bool = False, layout: Choice = "auto", block_size: int = 64
) -> Layout:
    """Each query sees itself and `window` positions on each side, or only those before it when `causal`.

    For w = window < N: N (2 w + 1) - w (w + 1) edges, or N (w + 1) - w (w + 1) / 2 when causal.

    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens below 1, window below 0, or an unknown layout or block size.
    """
    return dilated(num_tokens, window=window, dilations=(1,), causal=causal, layout=layout, block_size=block_size)
