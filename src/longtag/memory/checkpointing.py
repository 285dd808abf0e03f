"""Activation checkpointing (Chen et al., 2016): keep what enters a few blocks, recompute what happens inside them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Tensor], *args: Any, draws: bool) -> Tensor:
    """`function(*args)`, of which backward keeps the args alone and runs the rest again, under the same autocast.

    draws: whether the function draws random numbers, as dropout does; it then draws the same ones again.
    """
    with casts_of_their_own():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=draws)


@contextlib.contextmanager
def casts_of_their_own() -> Iterator[None]:
    """Without autocast's cache of cast weights: functions that share a cast weight add their gradients in bfloat16."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def run_checkpointed(blocks: Iterable[Callable[..., Tensor]], x: Tensor, *context: Any, every: int) -> Tensor:
    """Run `x = block(x, *context)` through all blocks, recomputing `every` blocks at a time in backward.

    every: 0 keeps all activations; 1 keeps the input of each block; k keeps the input of every k-th block and holds
           the activations of k blocks while their backward runs. Dropout draws the same mask again.
    """
    blocks = list(blocks)
    if every == 0 or not torch.is_grad_enabled():
        return _run(blocks, x, *context)
    for start in range(0, len(blocks), every):
        x = recomputed(_run, blocks[start : start + every], x, *context, draws=True)
    return x


def _run(blocks: list[Callable[..., Tensor]], x: Tensor, *context: Any) -> Tensor:
    for block in blocks:
        x = block(x, *context)
    return x
