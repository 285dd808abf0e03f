"""Activation checkpointing (Chen et al., 2016): keep what enters a few blocks, recompute what happens inside them."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from longtag.memory.offload import Offload


def recomputed(function: Callable[..., Tensor], *args: Any, draws: bool) -> Tensor:
    """`function(*args)`, of which backward keeps the args alone and runs the rest again, under the same autocast.

    draws: whether the function draws random numbers, as dropout does; it then draws the same ones again.
    """
    with casts_of_their_own():
        return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=draws)


@contextlib.contextmanager
def casts_of_their_own() -> Iterator[None]:
    """Without autocast's cache of cast weights: functions that share a cast weight add their gradients in bfloat16."""
    if torch.compiler.is_compiling():
        # What is compiled is traced without that cache, and torch 2.11 cannot trace a call that turns it off.
        yield
        return
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def run_checkpointed(
    blocks: Iterable[Callable[..., Tensor]], x: Tensor, *context: Any, every: int, offload: bool = False
) -> Tensor:
    """Run `x = block(x, *context)` through all blocks, recomputing `every` blocks at a time in backward.

    every:   0 keeps all activations; 1 keeps the input of each block; k keeps the input of every k-th block and holds
             the activations of k blocks while their backward runs. Dropout draws the same mask again.
    offload: whether tensors as large as x that are kept wait in host memory: the inputs named above, or all of a block
             where every is 0.
    """
    blocks = list(blocks)
    if not torch.is_grad_enabled() or (every == 0 and not offload):
        return _run(blocks, x, *context)
    size = every or 1
    groups = [blocks[start : start + size] for start in range(0, len(blocks), size)]
    trip = Offload(len(groups))
    for group in groups:
        with trip.stage(x) if offload else contextlib.nullcontext():
            x = recomputed(_run, group, x, *context, draws=True) if every else _run(group, x, *context)
    return x


def _run(blocks: list[Callable[..., Tensor]], x: Tensor, *context: Any) -> Tensor:
    for block in blocks:
        x = block(x, *context)
    return x
