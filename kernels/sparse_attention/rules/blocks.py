"""Given pairs of blocks: every query of one sees every key of the other, or what a mask leaves of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..layouts.block_sparse import WHOLE as WHOLE_BLOCK
from ..layouts.block_sparse import BlockSparse
from ..layouts.layout import EMPTY
from .rule import WHOLE as WHOLE_TILE
from .rule import Rule, num_blocks, split_codes, tile_by_itself


@dataclass(frozen=True, eq=False)
class Blocks(Rule):
    """Queries of block i see the keys of block j for each given pair (i, j), through a mask where there is one.

    size:       positions in a block.
    num_tokens: N; the last block may be shorter.
    codes:      (E,) int64, ascending, none twice: i * ceil(N / size) + j.
    masks:      (E,) int64: which of `bits` holds for the pair, or -1 where all its pairs of tokens count.
    bits:       (U, size, size) bool.
    """

    size: int
    num_tokens: int
    codes: Tensor
    masks: Tensor
    bits: Tensor

    @classmethod
    def whole(cls, size: int, num_tokens: int, codes: Tensor) -> Blocks:
        """Of codes in any order, each pair of blocks seen as a whole."""
        codes = codes.unique()
        nothing = torch.empty((0, size, size), dtype=torch.bool)
        return cls(size, num_tokens, codes, torch.full_like(codes, WHOLE_BLOCK), nothing)

    @classmethod
    def of(cls, layout: BlockSparse, head: int = 0) -> Blocks:
        """The rule that a layout's lists stand for, for one head of a per-head pattern."""
        lists = layout.lists.to("cpu")
        head_of_entry, row = (lists.row_of_entry.div(layout.num_rows, rounding_mode="floor"), lists.row_of_entry)
        mine = head_of_entry == head
        codes = (row - head * layout.num_rows)[mine] * layout.num_columns + lists.blocks[mine]
        codes, order = codes.sort()
        return cls(layout.block_size, layout.num_tokens, codes, lists.masks[mine][order].long(), layout.mask_bits.cpu())

    @cached_property
    def _offsets(self) -> Tensor:
        """Where the pairs of each block of queries begin in `codes`, and where the last ones end."""
        blocks = num_blocks(self.num_tokens, self.size)
        return torch.searchsorted(self.codes, torch.arange(blocks + 1) * blocks)

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        blocks = num_blocks(self.num_tokens, self.size)
        code = query.div(self.size, rounding_mode="floor") * blocks + key.div(self.size, rounding_mode="floor")
        if self.codes.numel() == 0:
            return torch.zeros(code.shape, dtype=torch.bool)
        place = torch.searchsorted(self.codes, code).clamp(max=self.codes.numel() - 1)
        found = self.codes[place] == code
        if self.bits.shape[0] == 0:
            return found
        mask = self.masks[place]
        inside = self.bits[mask.clamp(min=0), (query % self.size).expand_as(mask), (key % self.size).expand_as(mask)]
        return found & ((mask == WHOLE_BLOCK) | inside)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        block = query.div(self.size, rounding_mode="floor")
        begin, end = self._offsets[block], self._offsets[block + 1]
        entry = begin[:, None] + torch.arange(int((end - begin).max()) if query.numel() else 0)
        exists = entry < end[:, None]
        column = split_codes(self.codes[entry.clamp(max=max(0, self.codes.numel() - 1))], self.size, num_tokens)[1]
        keys = (column[..., None] * self.size + torch.arange(self.size)).flatten(1)
        keys = keys.masked_fill(~exists.repeat_interleave(self.size, 1) | (keys >= num_tokens), EMPTY)
        if self.bits.shape[0] == 0:
            return keys
        return keys.masked_fill(~self.allowed(query[:, None], keys.clamp(min=0)), EMPTY)

    def num_slots(self, num_tokens: int) -> int:
        return int(self._offsets.diff().max()) * self.size

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        if size == self.size:
            return self.codes
        row, column = (part * self.size for part in split_codes(self.codes, self.size, num_tokens))
        columns = num_blocks(num_tokens, size)
        # Every block of `size` that a pair of larger or smaller blocks overlaps.
        offset = torch.arange(0, self.size, min(size, self.size))
        rows = (row[:, None] + offset).clamp(max=num_tokens - 1).div(size, rounding_mode="floor")
        column = (column[:, None] + offset).clamp(max=num_tokens - 1).div(size, rounding_mode="floor")
        return (rows[:, :, None] * columns + column[:, None, :]).unique()

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        alone = tile_by_itself(query, key)
        if size != self.size or self.codes.numel() == 0:
            return alone
        code = query.div(size, rounding_mode="floor") * num_blocks(self.num_tokens, size)
        code = code + key.div(size, rounding_mode="floor")
        place = torch.searchsorted(self.codes, code).clamp(max=self.codes.numel() - 1)
        on_grid = (query % size == 0) & (key % size == 0) & (self.codes[place] == code)
        return torch.where(on_grid & (self.masks[place] == WHOLE_BLOCK), WHOLE_TILE, alone)
