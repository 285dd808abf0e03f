"""Tokens that all see, and tokens that see all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..layouts.layout import EMPTY
from .rule import NOTHING, WHOLE, Rule, grid_codes, num_blocks


@dataclass(frozen=True)
class _Positions(Rule):
    """positions: ascending, none twice; those past the end of the sequence do not count."""

    positions: tuple[int, ...]

    @cached_property
    def _at(self) -> Tensor:
        return torch.tensor(self.positions, dtype=torch.int64)

    def _among_them(self, position: Tensor) -> Tensor:
        return self._below(position + 1) > self._below(position)

    def _below(self, position: Tensor) -> Tensor:
        return torch.searchsorted(self._at, position.contiguous())

    def _kinds(self, start: Tensor, size: int) -> Tensor:
        count = self._below(start + size) - self._below(start)
        return start.masked_fill(count == size, WHOLE).masked_fill_(count == 0, NOTHING)

    def _blocks(self, size: int, num_tokens: int) -> Tensor:
        return self._at[self._at < num_tokens].div(size, rounding_mode="floor").unique()


class Columns(_Positions):
    """Every query sees the keys at `positions`."""

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        return self._among_them(key).expand(torch.broadcast_shapes(query.shape, key.shape))

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        return self._at[self._at < num_tokens].int().expand(query.numel(), -1)

    def num_slots(self, num_tokens: int) -> int:
        return len(self.positions)

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        return grid_codes(torch.arange(num_blocks(num_tokens, size)), self._blocks(size, num_tokens), size, num_tokens)

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        return self._kinds(key, size)


class Rows(_Positions):
    """The queries at `positions` see every key."""

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        return self._among_them(query).expand(torch.broadcast_shapes(query.shape, key.shape))

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        sees_all = self._among_them(query)
        if not bool(sees_all.any()):
            return torch.empty((query.numel(), 0), dtype=torch.int32)
        return torch.arange(num_tokens, dtype=torch.int32).where(sees_all[:, None], EMPTY)

    def num_slots(self, num_tokens: int) -> int:
        return 0

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        return grid_codes(self._blocks(size, num_tokens), torch.arange(num_blocks(num_tokens, size)), size, num_tokens)

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        return self._kinds(query, size)

    def full_rows(self, num_tokens: int) -> tuple[int, ...]:
        return tuple(position for position in self.positions if position < num_tokens)
