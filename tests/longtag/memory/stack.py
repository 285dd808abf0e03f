"""A few blocks of plain torch, one after the other, and their gradients."""

import functools

import torch
from torch import Tensor

from longtag.memory.checkpointing import run_checkpointed

SHAPE = (64, 16)
BOUNDARY = 64 * 16 * 4
"""Bytes of what enters a block."""


def stack(num_blocks: int = 6) -> tuple[list, Tensor]:
    """Blocks that draw and keep several tensors, and what enters them."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, 16, generator=generator).div(4).requires_grad_() for _ in range(num_blocks)]

    def block(weight: Tensor, x: Tensor) -> Tensor:
        return x + torch.nn.functional.dropout((x @ weight).tanh(), 0.3).sin()

    blocks = [functools.partial(block, weight) for weight in weights]
    return blocks, torch.randn(*SHAPE, generator=generator, requires_grad=True)


def run(blocks: list, x: Tensor, *, every: int = 1, offload: bool) -> Tensor:
    torch.manual_seed(1)
    return run_checkpointed(blocks, x, every=every, offload=offload).square().sum()


def gradients(cost: Tensor, blocks: list, x: Tensor, **options) -> tuple[Tensor, ...]:
    return torch.autograd.grad(cost, [x, *(block.args[0] for block in blocks)], **options)


def assert_same(found, expected) -> None:
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
