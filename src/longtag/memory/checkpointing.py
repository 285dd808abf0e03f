"""Activation checkpointing (Chen et al., 2016): keep what enters a few blocks, recompute what happens inside them."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def run_checkpointed(blocks: Iterable[Callable[..., Tensor]], x: Tensor, *context: Any, every: int) -> Tensor:
    """Run `x = block(x, *context)` through all blocks, recomputing `every` blocks at a time in backward.

    every: 0 keeps all activations; 1 keeps the input of each block; k keeps the input of every k-th block and holds
           the activations of k blocks while their backward runs. Dropout draws the same mask again.
    """
    blocks = list(blocks)
    if every == 0 or not torch.is_grad_enabled():
        return _run(blocks, x, *context)
    for start in range(0, len(blocks), every):
        x = _recomputed(blocks[start : start + every], x, *context)
    return x


def _run(blocks: list[Callable[..., Tensor]], x: Tensor, *context: Any) -> Tensor:
    for block in blocks:
        x = block(x, *context)
    return x


def _recomputed(blocks: list[Callable[..., Tensor]], x: Tensor, *context: Any) -> Tensor:
    return checkpoint(_run, blocks, x, *context, use_reentrant=False, preserve_rng_state=True)
