"""Several documents behind one another: no query sees across a boundary, and inside each of them a rule holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..layouts.layout import EMPTY
from .rule import NOTHING, Rule, num_blocks, relabelled, split_codes, tile_by_itself


@dataclass(frozen=True, eq=False)
class Documents(Rule):
    """Inside each document a query sees what the document's rule says of positions counted from its start.

    starts:  (D,) int64 first positions, ascending from 0.
    lengths: (D,) int64, together N.
    rules:   different rules.
    which:   (D,) int64: which of `rules` holds in each document.
    """

    starts: Tensor
    lengths: Tensor
    rules: tuple[Rule, ...]
    which: Tensor

    @property
    def num_heads(self) -> int | None:
        return next((rule.num_heads for rule in self.rules if rule.num_heads), None)

    def for_head(self, head: int) -> Rule:
        return Documents(self.starts, self.lengths, tuple(rule.for_head(head) for rule in self.rules), self.which)

    def _document(self, position: Tensor) -> Tensor:
        return torch.searchsorted(self.starts, position.contiguous(), right=True) - 1

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        document, other = self._document(query), self._document(key)
        # Counted from the start of the query's document; what lies outside of it is brought inside, and left out below.
        start = self.starts[document]
        local = (key - start).clamp(min=0).minimum(self.lengths[document] - 1)
        allowed = torch.zeros(local.shape, dtype=torch.bool)
        for number in self.which[document].unique().tolist():
            allowed |= (self.which[document] == number) & self.rules[number].allowed(query - start, local)
        return allowed & (document == other)

    @cached_property
    def _alike(self) -> tuple[Tensor, int]:
        """A number for each document, the same for those of the same rule and length."""
        return relabelled(self.which * (int(self.lengths.max()) + 1) + self.lengths)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        document = self._document(query)
        group, parts = self._alike[0][document], []
        for number in group.unique().tolist():
            mine = (group == number).nonzero().squeeze(1)
            start = self.starts[document[mine]]
            parts.append((mine, start, self._keys_within(int(document[mine[0]]), query[mine] - start)))
        width = max((keys.shape[1] for _, _, keys in parts), default=0)
        table = torch.full((query.numel(), width), EMPTY, dtype=torch.int32)
        for mine, start, keys in parts:
            table[mine, : keys.shape[1]] = (keys + start[:, None]).masked_fill(keys < 0, EMPTY).int()
        return table

    def _keys_within(self, document: int, query: Tensor) -> Tensor:
        return self.rules[int(self.which[document])].keys(query, int(self.lengths[document]))

    def num_slots(self, num_tokens: int) -> int:
        most = 0
        for document in self._one_of_each:
            rule, length = self.rules[int(self.which[document])], int(self.lengths[document])
            most = max(most, rule.num_slots(length), length if rule.full_rows(length) else 0)
        return most

    @cached_property
    def _one_of_each(self) -> list[int]:
        group, count = self._alike
        first = torch.empty(count, dtype=torch.int64)
        first[group.flip(0)] = torch.arange(group.numel()).flip(0)
        return first.tolist()

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        columns = num_blocks(num_tokens, size)
        shape = self._alike[0] * size + self.starts % size
        order = shape.argsort(stable=True)
        found = []
        for documents in order.split(shape[order].unique_consecutive(return_counts=True)[1].tolist()):
            row, column = self._tiles_of(int(documents[0]), size)
            block = self.starts[documents].div(size, rounding_mode="floor")[:, None]
            found.append(((block + row) * columns + block + column).flatten())
        return torch.cat(found).unique()

    def _tiles_of(self, document: int, size: int) -> tuple[Tensor, Tensor]:
        """Rows and columns of tiles, counted from the block in which the document starts."""
        length, shift = int(self.lengths[document]), int(self.starts[document]) % size
        own = self.rules[int(self.which[document])].tiles(size, length)
        if shift == 0:
            return split_codes(own, size, length)
        # A tile of the document's own grid overlaps up to two rows and two columns of the sequence's.
        last = (shift + length - 1) // size
        row, column = (torch.stack((part, (part + 1).clamp(max=last))) for part in split_codes(own, size, length))
        codes = (row[:, None] * (last + 1) + column[None]).unique()
        return codes.div(last + 1, rounding_mode="floor"), codes % (last + 1)

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        document = self._document(query)
        end = self.starts[document] + self.lengths[document]
        inside = (query + size <= end) & (key >= self.starts[document]) & (key + size <= end)
        kinds = self._kinds_across(query, key, size)
        group = torch.where(inside, self.which[document], -1)
        for number in group.unique().tolist():
            if number < 0:
                continue
            mine = (group == number).nonzero().squeeze(1)
            start = self.starts[document[mine]]
            own = self.rules[number].kinds(query[mine] - start, key[mine] - start, size)
            names, _ = relabelled(own)
            # Even numbers are taken by tiles across boundaries.
            names = 2 * (names * len(self.rules) + number) + 1
            kinds[mine] = torch.where(own < 0, own, names)
        first, last = self._document(key), self._document(key + size - 1)
        apart = (first > self._document(query + size - 1)) | (last < document)
        return kinds.masked_fill_(apart, NOTHING)

    def _kinds_across(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        """Even numbers for tiles that meet a boundary; documents all alike have the same ones."""
        length, shift = int(self.lengths[0]), key - query
        last_start = int(self.starts[-1])
        regular = bool((self._alike[0][:-1] == self._alike[0][0]).all()) and length * 4 * size < 2**40
        if not regular:
            return 2 * tile_by_itself(query, key)
        before_last = (query + size <= last_start) & (key + size <= last_start)
        reach = length + 2 * size
        again = (query % length) * (2 * reach + 1) + shift.clamp(-reach, reach) + reach
        beyond = (length + 1) * (2 * reach + 1)
        return 2 * torch.where(before_last, again, beyond + tile_by_itself(query, key))
