"""How a running mean of AdamW is kept: in float32, in bfloat16, or in 8 bits through torchao.

8 bits are those of Dettmers et al. (2022, arXiv:2110.02861): blocks of 256 numbers, each divided by its largest and
looked up in a table that is finer near 0.
"""

import functools
import logging
from typing import Literal

import torch
from torch import Tensor

from longtag.errors import UsageError
from longtag.optim.rounding import stochastic

States = Literal["float32", "bfloat16", "8bit"]

Kept = Tensor | tuple[Tensor, Tensor]
"""A mean in the weight's shape, or its codes in that shape (uint8) and the largest number of each block (float32)."""

BLOCK = 256
SMALLEST = 4096
"""Weights with fewer elements, or not in whole blocks, keep float32 where 8 bits are asked for: norms and biases."""


def kept_as(states: States, weight: Tensor) -> Kept:
    """A mean of zeros for a weight."""
    if states == "8bit" and weight.numel() >= SMALLEST and weight.numel() % BLOCK == 0:
        codes = torch.zeros_like(weight, dtype=torch.uint8)
        return codes, weight.new_zeros(weight.numel() // BLOCK, dtype=torch.float32)
    return torch.zeros_like(weight, dtype=torch.bfloat16 if states == "bfloat16" else torch.float32)


def flat(kept: Kept) -> Kept:
    """The same memory as one row."""
    return (kept[0].view(-1), kept[1]) if isinstance(kept, tuple) else kept.view(-1)


def read(kept: Kept, table: Tensor | None) -> Tensor:
    """The mean in float32; codes are looked up in the table."""
    if isinstance(kept, tuple):
        from torchao.optim.quant_utils import dequant_with_qmap  # pyright: ignore[reportMissingImports]

        assert table is not None
        return dequant_with_qmap(kept[0], table, kept[1])
    return kept.float()


def write(kept: Kept, mean: Tensor, table: Tensor | None, noise: Tensor | None = None) -> None:
    """Keep a float32 mean.

    noise: what `stochastic` takes, for a mean in bfloat16; without it such a mean is rounded to the nearest.
    """
    if isinstance(kept, tuple):
        from torchao.optim.quant_utils import (  # pyright: ignore[reportMissingImports]
            quantize_8bit_with_qmap,
            scale_tensor,
        )

        assert table is not None
        scaled, largest = scale_tensor(mean, BLOCK)
        kept[0].copy_(quantize_8bit_with_qmap(scaled, table))
        kept[1].copy_(largest)
    elif noise is not None and kept.dtype == torch.bfloat16:
        kept.copy_(stochastic(mean, noise))
    else:
        kept.copy_(mean)


def take_over(kept: Kept, other: Kept, *, signed: bool) -> None:
    """Set a mean to another one, which may be kept in another way and on another device."""
    if isinstance(kept, tuple) and isinstance(other, tuple):
        for ours, theirs in zip(kept, other, strict=True):
            ours.copy_(theirs)
    elif isinstance(kept, tuple):
        write(kept, in_float32(other, signed=signed).to(kept[0].device), code_table(signed, kept[0].device))
    else:
        kept.copy_(in_float32(other, signed=signed))


def in_float32(kept: Kept, *, signed: bool) -> Tensor:
    """The mean in float32, wherever it lies."""
    return read(kept, code_table(signed, kept[0].device) if isinstance(kept, tuple) else None)


@functools.cache
def code_table(signed: bool, device: torch.device) -> Tensor:
    """The 256 numbers that codes stand for, float32: from -1 to 1, or from 0 to 1.

    Raises UsageError, naming the extra, where torchao is missing.
    """
    # Importing it warns of kernels of its own, of which none is used here.
    logging.disable(logging.WARNING)
    try:
        from torchao.optim.quant_utils import create_dynamic_map  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            "states=8bit: torchao, which quantises them, is not installed; pip install -e '.[lowbit]', or give "
            "optim.states=bfloat16"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    return torch.tensor(create_dynamic_map(signed=signed), device=device)
