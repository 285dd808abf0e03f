"""Dilated attention windows: few keys that reach far, several dilations in one list."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layouts import EMPTY, IndexList
from .options import check_at_least


def dilated(num_tokens: int, *, window: int, dilations: Sequence[int], causal: bool = False) -> IndexList:
    """Each query sees itself and, for each dilation g, the positions at distance g, 2 g, .. window g on each side.

    A position that several dilations reach is listed once; positions outside the sequence are empty slots. `causal`
    leaves out the keys after the query. Sparse Transformers (Child et al. 2019) call one dilation a strided pattern.

    Raises ValueError for num_tokens or a dilation below 1, window below 0, or no dilation at all.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_at_least(0, window=window)
    if isinstance(dilations, str) or not isinstance(dilations, Sequence) or not dilations:
        raise ValueError(f"dilations={dilations!r}: expected a list of one or more whole numbers, such as [1, 16, 256]")
    for dilation in dilations:
        check_at_least(1, dilations=dilation)
    back = {-dilation * step for dilation in dilations for step in range(window + 1)}
    steps = back if causal else back | {-step for step in back}
    # A step as long as the sequence leads out of it from everywhere: its slot would be empty in all rows.
    return IndexList(_keys_at(num_tokens, sorted(step for step in steps if abs(step) < num_tokens)), validate=False)


def _keys_at(num_tokens: int, steps: list[int]) -> Tensor:
    """(num_tokens, len(steps)): query i sees i + step for each step."""
    keys = torch.arange(num_tokens, dtype=torch.int32)[:, None] + torch.tensor(steps, dtype=torch.int32)
    return keys.masked_fill_((keys < 0) | (keys >= num_tokens), EMPTY)
