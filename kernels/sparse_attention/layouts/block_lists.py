"""The entries of a block sparse layout, row by row.

Shapes: R rows of blocks, H heads, E entries (a block of queries that sees a block of keys).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE = -1
"""In place of a mask: every pair of the block counts."""


@dataclass(frozen=True)
class BlockLists:
    """The entries, row by row: rows are blocks of queries, or blocks of keys where the lists are transposed.

    The rows of head h of a per-head pattern are h R to h R + R - 1; otherwise all heads share rows 0 to R - 1. In each
    row whole blocks come first, and whole and partial ones each in ascending order.

    offsets: (H R + 1,) int32; the entries of row r are offsets[r] to offsets[r + 1] - 1.
    partial: (H R,) int32; the partial ones among them are partial[r] to offsets[r + 1] - 1.
    blocks:  (E,) int32; which block of keys (transposed: of queries) an entry is about.
    masks:   (E,) int32; which mask holds for it, or WHOLE.
    """

    offsets: Tensor
    partial: Tensor
    blocks: Tensor
    masks: Tensor

    @classmethod
    def build(cls, rows: Tensor, blocks: Tensor, masks: Tensor, num_rows: int) -> BlockLists:
        """From entries in any order, each (E,); `rows` counts through all heads, from 0 to num_rows - 1."""
        kind = rows.long() * 2 + (masks != WHOLE)
        width = int(blocks.max()) + 1 if blocks.numel() else 1
        order = (kind * width + blocks).argsort(stable=True)
        # Two numbers a row: where its whole blocks begin, and where its partial ones do.
        bounds = torch.arange(2 * num_rows + 1, device=rows.device)
        starts = torch.searchsorted(kind[order], bounds, out_int32=True)
        return cls(
            starts[::2].contiguous(), starts[1::2].contiguous(), blocks[order].int(), masks[order].int()
        )  # fmt: skip

    @property
    def row_of_entry(self) -> Tensor:
        """(E,) int64: the row that each entry belongs to."""
        counts = self.offsets.diff().long()
        return torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts)

    def to(self, device: torch.device | str) -> BlockLists:
        return BlockLists(*(x.to(device) for x in (self.offsets, self.partial, self.blocks, self.masks)))
