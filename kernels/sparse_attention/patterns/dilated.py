"""Dilated attention windows: few keys that reach far, several dilations in one pattern."""

from collections.abc import Sequence

from ..layouts import Layout
from ..rules import Choice, Steps, lay_out
from .options import check_at_least, check_list


def dilated(
    num_tokens: int,
    *,
    window: int,
    dilations: Sequence[int],
    causal: bool = False,
    layout: Choice = "auto",
    block_size: int = 64,
) -> Layout:
    """Each query sees itself and, for each dilation g, the positions at distance g, 2 g, .. window g on each side.

    A position that several dilations reach is seen once. `causal` leaves out the keys after the query. Dilated sliding
    windows are from Longformer (Beltagy, Peters and Cohan 2020, arXiv:2004.05150, section 3.1).

    The sum of N - |s| edges over the different steps s; at most N (2 window len(dilations) + 1).

    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens or a dilation below 1, window below 0, no dilation at all, or an unknown layout or
    block size.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_at_least(0, window=window)
    check_list(1, "[1, 16, 256]", dilations=dilations)
    return lay_out(_rule(num_tokens, window, dilations, causal), num_tokens, layout=layout, block_size=block_size)


def _rule(num_tokens: int, window: int, dilations: Sequence[int], causal: bool) -> Steps:
    bands = []
    for dilation in sorted(set(dilations)):
        # No farther than the sequence is long, so that options of any size cost nothing.
        far = min(window, (num_tokens - 1) // dilation) * dilation
        bands.append(range(-far, 1 if causal else far + 1, dilation))
    return Steps(tuple(bands))
