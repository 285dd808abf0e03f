"""The sequence cut into stretches of equal length: a query sees its own one, or the last positions of several."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..layouts.layout import EMPTY
from .rule import NOTHING, WHOLE, Rule, num_blocks


@dataclass(frozen=True)
class Stretches(Rule):
    """A query sees the last `num_last` positions of the stretches `first` to `last` away from its own.

    size:        positions in a stretch; the last stretch may be shorter.
    num_last:    positions at the end of each stretch that are seen; all of them if it equals `size`.
    first, last: from which stretch to which, counted from the query's own: 0 and 0 for its own alone.
    """

    size: int
    num_last: int
    first: int = 0
    last: int = 0

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        away = self._stretch(key) - self._stretch(query)
        return (away >= self.first) & (away <= self.last) & (key % self.size >= self.size - self.num_last)

    def _stretch(self, position: Tensor) -> Tensor:
        return position.div(self.size, rounding_mode="floor")

    def _away(self, num_tokens: int) -> Tensor:
        most = num_blocks(num_tokens, self.size) - 1
        return torch.arange(max(self.first, -most), min(self.last, most) + 1)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        seen = torch.arange(self.size - self.num_last, self.size)
        offset = (self._away(num_tokens)[:, None] * self.size + seen).flatten().int()
        keys = (self._stretch(query) * self.size).int()[:, None] + offset
        return keys.masked_fill_((keys < 0) | (keys >= num_tokens), EMPTY)

    def num_slots(self, num_tokens: int) -> int:
        return self._away(num_tokens).numel() * self.num_last

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        stretch = torch.arange(num_blocks(num_tokens, self.size))
        exists = (stretch + 1) * self.size - self.num_last < num_tokens
        columns = _runs(*self._blocks_of(stretch[exists], size, num_tokens)).unique()
        # A block of queries overlaps a run of stretches, so that what it sees is a run of these columns.
        start = torch.arange(num_blocks(num_tokens, size)) * size
        low = (self._stretch(start) + self.first).clamp(min=0)
        high = (self._stretch((start + size).clamp(max=num_tokens) - 1) + self.last).clamp(max=stretch.numel() - 1)
        begin = torch.searchsorted(columns, self._blocks_of(low, size, num_tokens)[0])
        end = torch.searchsorted(columns, self._blocks_of(high, size, num_tokens)[1], right=True)
        end = end.where(low <= high, begin)
        rows = torch.arange(start.numel()).repeat_interleave((end - begin).clamp(min=0))
        return rows * num_blocks(num_tokens, size) + columns[_runs(begin, end - 1)]

    def _blocks_of(self, stretch: Tensor, size: int, num_tokens: int) -> tuple[Tensor, Tensor]:
        """First and last block of `size` that hold seen positions of each stretch."""
        begin, end = (stretch + 1) * self.size - self.num_last, ((stretch + 1) * self.size).clamp(max=num_tokens)
        return begin.div(size, rounding_mode="floor"), (end - 1).div(size, rounding_mode="floor")

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        away = self._stretch(key) - self._stretch(query)
        least = self._stretch(key) - self._stretch(query + size - 1)
        most = self._stretch(key + size - 1) - self._stretch(query)
        inside = (least >= self.first) & (most <= self.last)
        # Only at the ends of the range does it matter where queries stand, and how many stretches away keys are.
        away = away.clamp(self.first - size - 1, self.last + size + 1) - (self.first - size - 2)
        border = (away * self.size + query % self.size) * self.size
        seen = self._seen_below(key + size) - self._seen_below(key)
        kinds = key % self.size + border.masked_fill(inside, 0)
        kinds.masked_fill_(inside & (seen == size), WHOLE)
        return kinds.masked_fill_((most < self.first) | (least > self.last) | (seen == 0), NOTHING)

    def _seen_below(self, position: Tensor) -> Tensor:
        """How many positions below this one are among the last of their stretch."""
        into = (position % self.size - (self.size - self.num_last)).clamp(min=0)
        return self._stretch(position) * self.num_last + into


def _runs(first: Tensor, last: Tensor) -> Tensor:
    """first[0], .. last[0], first[1], .. last[1], and so on; a run is empty where its last is below its first."""
    counts = (last - first + 1).clamp(min=0)
    before = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum())) + (first - before).repeat_interleave(counts)
