"""Hooks at the borders of blocks, in forward and in backward, also where a block is run a second time."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def when_backward_leaves(blocks: Iterable[nn.Module], call: Callable[[int], object]) -> list[RemovableHandle]:
    """`call(number)` each time backward has done with a block, counted from 0: its first parameter has its gradient.

    Backward ends a block with what forward began it with, which is where its first parameter is used. A block without
    parameters that learn is passed over.
    """
    handles = []
    for number, block in enumerate(blocks):
        first = next((parameter for parameter in block.parameters() if parameter.requires_grad), None)
        if first is not None:
            handles.append(first.register_post_accumulate_grad_hook(lambda _, number=number: call(number)))
    return handles


def when_forward_enters_and_leaves(
    blocks: Iterable[nn.Module], enter: Callable[[int], object], leave: Callable[[int], object]
) -> list[RemovableHandle]:
    """`enter(number)` and `leave(number)` around each run of a block, the one that checkpointing repeats as well.

    Nothing is called from inside of a compiled graph.
    """
    handles = []
    for number, block in enumerate(blocks):
        handles.append(block.register_forward_pre_hook(lambda *_, number=number: _outside_of_graphs(enter, number)))
        # Always: checkpointing stops a block by an exception as soon as it has all it needs.
        handles.append(
            block.register_forward_hook(lambda *_, number=number: _outside_of_graphs(leave, number), always_call=True)
        )
    return handles


def _outside_of_graphs(call: Callable[[int], object], number: int) -> None:
    if not torch.compiler.is_compiling():
        call(number)
