"""Awkward block sparse layouts, drawn afresh from a seed."""

from collections.abc import Callable

import torch
from torch import Tensor

from sparse_attention import BlockSparse
from sparse_attention.layouts.bit_masks import pack_bits

NUM_MASKS = 4


def _drawn(seen: Tensor, generator: torch.Generator) -> Tensor:
    return seen


def _global_rows_and_columns(seen: Tensor, generator: torch.Generator) -> Tensor:
    seen[..., 0, :] = seen[..., -1, :] = True
    seen[..., 0] = seen[..., -1] = True
    return seen


def _empty_rows(seen: Tensor, generator: torch.Generator) -> Tensor:
    seen[..., ::2, :] = False
    return seen


def _unseen_columns(seen: Tensor, generator: torch.Generator) -> Tensor:
    seen[..., 1:2] = False
    return seen


AWKWARD_BLOCKS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "drawn at random": _drawn,
    "global rows and columns": _global_rows_and_columns,
    "empty rows": _empty_rows,
    "unseen columns": _unseen_columns,
    "all blocks": lambda seen, generator: torch.ones_like(seen),
    "no block": lambda seen, generator: torch.zeros_like(seen),
}


def block_layout(
    name: str = "drawn at random",
    *,
    num_tokens: int,
    block_size: int = 16,
    num_keys: int | None = None,
    heads: int | None = None,
    partial: float = 0.5,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> BlockSparse:
    """The blocks of `AWKWARD_BLOCKS` called `name`; a share of `partial` of them with masks drawn at random.

    One of the masks lets nothing pass, and one leaves half of the queries without a key.
    """
    generator = torch.Generator().manual_seed(seed)
    num_keys = num_tokens if num_keys is None else num_keys
    num_rows, num_columns = -(-num_tokens // block_size), -(-num_keys // block_size)
    seen = torch.rand(heads or 1, num_rows, num_columns, generator=generator) < 0.5
    head, row, column = AWKWARD_BLOCKS[name](seen, generator).nonzero(as_tuple=True)
    masks = torch.randint(NUM_MASKS, row.shape, generator=generator)
    masks = masks.masked_fill(torch.rand(row.shape, generator=generator) >= partial, -1)
    bits = torch.rand(NUM_MASKS, block_size, block_size, generator=generator) < 0.5
    bits[0] = False
    bits[1, ::2] = False
    return BlockSparse(
        head * num_rows + row, column, masks, pack_bits(bits),
        block_size=block_size, num_tokens=num_tokens, num_keys=num_keys, num_heads=heads,
    ).to(device)  # fmt: skip
