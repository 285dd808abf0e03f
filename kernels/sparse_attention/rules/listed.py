"""An explicit table of keys: drawn at random, read from a file, or made by the user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..layouts.layout import EMPTY
from .rule import Rule, num_blocks, tile_by_itself


@dataclass(frozen=True, eq=False)
class Listed(Rule):
    """A query sees the keys in its row of a table.

    indices: (N, n) int32 or int64 on the CPU; -1 where a slot is empty. A key listed twice is seen once.
    """

    indices: Tensor

    @cached_property
    def _rows(self) -> Tensor:
        """The table with each key once, in descending order, so that empty slots come last."""
        rows = self.indices.sort(dim=-1, descending=True).values
        again = torch.zeros_like(rows, dtype=torch.bool)
        again[:, 1:] = rows[:, 1:] == rows[:, :-1]
        return rows.masked_fill_(again, EMPTY)

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        query = query.clamp(max=self.indices.shape[0] - 1)
        found = torch.zeros(torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool)
        for slot in self.indices.unbind(-1):
            found |= slot[query] == key
        return found

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        return self._rows[query]

    def num_slots(self, num_tokens: int) -> int:
        return self.indices.shape[-1]

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        row = torch.arange(self.indices.shape[0])[:, None].div(size, rounding_mode="floor")
        column = self.indices.div(size, rounding_mode="floor")
        codes = row * num_blocks(num_tokens, size) + column
        return codes[self.indices >= 0].unique()

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        return tile_by_itself(query, key)
