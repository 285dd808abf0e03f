"""Keys at given distances from the query: windows, dilations, strides, powers of two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..layouts.layout import EMPTY
from .rule import NOTHING, WHOLE, Rule, num_blocks


@dataclass(frozen=True)
class Steps(Rule):
    """A query sees the keys at `key - query` in any of the ranges; the same for every query, so bands of tiles repeat.

    ranges: python ranges of ascending steps, any of which may be empty. Memory grows with the farthest step.
    """

    ranges: tuple[range, ...]

    @cached_property
    def steps(self) -> Tensor:
        """(s,) int64: every step once, ascending."""
        steps = torch.cat([torch.empty(0, dtype=torch.int64), *(torch.arange(r.start, r.stop, r.step) for r in
                           self.ranges if r)])  # fmt: skip
        return steps.unique()

    @cached_property
    def _farthest(self) -> int:
        return int(self.steps.abs().max()) + 1 if self.steps.numel() else 1

    @cached_property
    def _before(self) -> Tensor:
        """How many steps lie below -farthest, -farthest + 1, .. farthest + 1."""
        taken = torch.zeros(2 * self._farthest + 2, dtype=torch.int64)
        taken[self.steps + self._farthest + 1] = 1
        return taken.cumsum(0)

    def _between(self, first: Tensor, last: Tensor) -> Tensor:
        """How many of the steps from `first` to `last` are taken."""
        far = self._farthest
        return self._before[last.clamp(-far, far) + far + 1] - self._before[first.clamp(-far, far) + far]

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        step = key - query
        allowed = torch.zeros_like(step, dtype=torch.bool)
        for band in self.ranges:
            inside = (step >= band.start) & (step < band.stop)
            allowed |= inside if band.step == 1 else inside & ((step - band.start) % band.step == 0)
        return allowed

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        keys = query[:, None].int() + self._within(num_tokens).int()
        return keys.masked_fill_((keys < 0) | (keys >= num_tokens), EMPTY)

    def num_slots(self, num_tokens: int) -> int:
        return self._within(num_tokens).numel()

    def _within(self, num_tokens: int) -> Tensor:
        # A step as long as the sequence leads out of it from everywhere: its slot would be empty in all rows.
        return self.steps[self.steps.abs() < num_tokens]

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        steps, columns = self._within(num_tokens), num_blocks(num_tokens, size)
        first, last = steps.div(size, rounding_mode="floor"), (steps + size - 1).div(size, rounding_mode="floor")
        row = torch.arange(columns)[:, None]
        column = row + torch.cat((first, last)).unique()
        return (row * columns + column)[(column >= 0) & (column < columns)]

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        shift = key - query
        count = self._between(shift - size + 1, shift + size - 1)
        reach = self._farthest + size
        kinds = shift.clamp(-reach, reach) + reach
        return kinds.masked_fill_(count == 2 * size - 1, WHOLE).masked_fill_(count == 0, NOTHING)


@dataclass(frozen=True)
class Everything(Rule):
    """A query sees every key, or when `causal` every key up to its own position.

    Enumerated, it is as large as dense attention: meant for short sequences, and for the right side of &.
    """

    causal: bool = False

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        if self.causal:
            return key <= query
        return torch.ones(torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool, device=query.device)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        keys = torch.arange(num_tokens).expand(query.numel(), -1)
        return keys.masked_fill(keys > query[:, None], EMPTY) if self.causal else keys

    def num_slots(self, num_tokens: int) -> int:
        return num_tokens

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        columns = num_blocks(num_tokens, size)
        codes = torch.arange(columns * columns)
        return codes[codes % columns <= codes // columns] if self.causal else codes

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        shift = key - query
        if not self.causal:
            return torch.full_like(shift, WHOLE)
        kinds = shift.clamp(-size, size) + size
        return kinds.masked_fill_(shift <= 1 - size, WHOLE).masked_fill_(shift >= size, NOTHING)
