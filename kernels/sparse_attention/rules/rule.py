"""What a pattern says, once: whether a query sees a key. Layouts are derived from it; rules combine with |, & and -.

A tile is a square of `size` queries and `size` keys. Rules list the tiles that hold any allowed pair, and say which of
them look alike, so that a layout of blocks evaluates a few tiles instead of N^2 pairs.

Shapes: N tokens, which are queries and keys both; r queries, s slots for their keys, e tiles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..layouts.layout import EMPTY

NOTHING = -2
"""The kind of a tile in which no query sees a key."""

WHOLE = -1
"""The kind of a tile in which every query sees every key."""


class Rule(ABC):
    """Which keys each query sees, for positions from 0 to N - 1.

    `allowed` is the rule. `keys` and `tiles` enumerate what it allows in time proportional to what they return, and
    must agree with it; N is given to them since most rules hold for any length.
    """

    @property
    def num_heads(self) -> int | None:
        """H of a rule that differs from head to head; None for one that all heads share."""
        return None

    def for_head(self, head: int) -> Rule:
        """The rule of one head."""
        return self

    @abstractmethod
    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether each query sees each key: bool, of the shape to which the two int64 tensors broadcast.

        Tiles may reach past the end of the sequence: what is answered there does not count, but must not raise.
        """

    @abstractmethod
    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        """(r, s): the keys that each of the queries (r,) int64 sees, each once and in any order, -1 where a slot is
        empty."""

    @abstractmethod
    def num_slots(self, num_tokens: int) -> int:
        """The s of `keys`, or more, for queries other than `full_rows`."""

    @abstractmethod
    def tiles(self, size: int, num_tokens: int) -> Tensor:
        """(e,) int64, ascending, none twice: row * columns + column of each tile that may hold an allowed pair.

        Rows and columns count blocks of `size` positions; there are ceil(N / size) of each.
        """

    @abstractmethod
    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        """(e,) int64, for the tiles that begin at the positions `query` and `key`, (e,) int64 each, and need not lie on
        a grid: WHOLE, NOTHING, or a number from 0 up. Tiles with the same number hold the same pairs."""

    def full_rows(self, num_tokens: int) -> tuple[int, ...]:
        """Queries that see every key, as far as the rule knows them as such."""
        return ()

    def __or__(self, other: Rule) -> Rule:
        return Union(self, other)

    def __and__(self, other: Rule) -> Rule:
        return Intersection(self, other)

    def __sub__(self, other: Rule) -> Rule:
        return Difference(self, other)


@dataclass(frozen=True)
class _Pair(Rule):
    first: Rule
    second: Rule

    def __post_init__(self) -> None:
        heads = {self.first.num_heads, self.second.num_heads} - {None}
        if len(heads) > 1:
            raise ValueError(f"num_heads: expected the same in every pattern, got {' and '.join(map(str, heads))}")

    @property
    def num_heads(self) -> int | None:
        return self.first.num_heads or self.second.num_heads

    def for_head(self, head: int) -> Rule:
        return type(self)(self.first.for_head(head), self.second.for_head(head))

    def kinds(self, query: Tensor, key: Tensor, size: int) -> Tensor:
        first, second = self.first.kinds(query, key, size), self.second.kinds(query, key, size)
        kinds = torch.full_like(first, WHOLE).masked_fill_(self._is_nothing(first, second), NOTHING)
        mixed = ~(self._is_whole(first, second) | (kinds == NOTHING))
        # Tiles are often whole or empty without exception, and then there is nothing to name.
        if bool(mixed.any()):
            names, count = relabelled(second[mixed])
            kinds[mixed] = relabelled(first[mixed])[0] * count + names
        return kinds

    @abstractmethod
    def _is_whole(self, first: Tensor, second: Tensor) -> Tensor:
        """Where tiles of these two kinds make a whole one."""

    @abstractmethod
    def _is_nothing(self, first: Tensor, second: Tensor) -> Tensor:
        """Where tiles of these two kinds make an empty one."""


class Union(_Pair):
    """What either of two rules allows."""

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allowed(query, key) | self.second.allowed(query, key)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        first, second = self.first.keys(query, num_tokens), self.second.keys(query, num_tokens)
        listed = (second >= 0) & self.first.allowed(query[:, None], second.clamp(min=0))
        return torch.cat((first, second.masked_fill(listed, EMPTY)), dim=1)

    def num_slots(self, num_tokens: int) -> int:
        return self.first.num_slots(num_tokens) + self.second.num_slots(num_tokens)

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        return _merged(self.first.tiles(size, num_tokens), self.second.tiles(size, num_tokens))

    def _is_whole(self, first: Tensor, second: Tensor) -> Tensor:
        return (first == WHOLE) | (second == WHOLE)

    def _is_nothing(self, first: Tensor, second: Tensor) -> Tensor:
        return (first == NOTHING) & (second == NOTHING)

    def full_rows(self, num_tokens: int) -> tuple[int, ...]:
        return tuple(dict.fromkeys((*self.first.full_rows(num_tokens), *self.second.full_rows(num_tokens))))


class Intersection(_Pair):
    """What both of two rules allow. The first one is enumerated: let it be the one that allows less."""

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allowed(query, key) & self.second.allowed(query, key)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        keys = self.first.keys(query, num_tokens)
        return keys.masked_fill((keys < 0) | ~self.second.allowed(query[:, None], keys.clamp(min=0)), EMPTY)

    def num_slots(self, num_tokens: int) -> int:
        return num_tokens if self.first.full_rows(num_tokens) else self.first.num_slots(num_tokens)

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        codes = self.first.tiles(size, num_tokens)
        row, column = split_codes(codes, size, num_tokens)
        return codes[self.second.kinds(row * size, column * size, size) != NOTHING]

    def _is_whole(self, first: Tensor, second: Tensor) -> Tensor:
        return (first == WHOLE) & (second == WHOLE)

    def _is_nothing(self, first: Tensor, second: Tensor) -> Tensor:
        return (first == NOTHING) | (second == NOTHING)

    def full_rows(self, num_tokens: int) -> tuple[int, ...]:
        second = set(self.second.full_rows(num_tokens))
        return tuple(row for row in self.first.full_rows(num_tokens) if row in second)


class Difference(_Pair):
    """What one rule allows and another one does not."""

    def allowed(self, query: Tensor, key: Tensor) -> Tensor:
        return self.first.allowed(query, key) & ~self.second.allowed(query, key)

    def keys(self, query: Tensor, num_tokens: int) -> Tensor:
        keys = self.first.keys(query, num_tokens)
        return keys.masked_fill((keys < 0) | self.second.allowed(query[:, None], keys.clamp(min=0)), EMPTY)

    def num_slots(self, num_tokens: int) -> int:
        return num_tokens if self.first.full_rows(num_tokens) else self.first.num_slots(num_tokens)

    def tiles(self, size: int, num_tokens: int) -> Tensor:
        codes = self.first.tiles(size, num_tokens)
        row, column = split_codes(codes, size, num_tokens)
        return codes[self.second.kinds(row * size, column * size, size) != WHOLE]

    def _is_whole(self, first: Tensor, second: Tensor) -> Tensor:
        return (first == WHOLE) & (second == NOTHING)

    def _is_nothing(self, first: Tensor, second: Tensor) -> Tensor:
        return (first == NOTHING) | (second == WHOLE)


def _merged(first: Tensor, second: Tensor) -> Tensor:
    """What either of two ascending lists holds, ascending and none twice, without a sort."""
    few, many = sorted((first, second), key=len)
    if not few.numel():
        return many
    place = torch.searchsorted(many, few)
    new = many[place.clamp(max=many.numel() - 1)] != few
    few, place = few[new], place[new]
    if not few.numel():
        return many
    merged = many.new_empty(many.numel() + few.numel())
    from_few = torch.zeros(merged.shape, dtype=torch.bool)
    from_few[place + torch.arange(few.numel())] = True
    merged[from_few], merged[~from_few] = few, many
    return merged


def num_blocks(num_tokens: int, size: int) -> int:
    """Blocks of `size` positions that hold `num_tokens`; the last may be shorter."""
    return -(-num_tokens // size)


def split_codes(codes: Tensor, size: int, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Row and column of tiles as `Rule.tiles` gives them."""
    columns = num_blocks(num_tokens, size)
    row = codes.div(columns, rounding_mode="floor")
    return row, codes - row * columns


def grid_codes(rows: Tensor, columns: Tensor, size: int, num_tokens: int) -> Tensor:
    """The tiles in which any of `rows` (ascending) meets any of `columns` (ascending)."""
    return (rows[:, None] * num_blocks(num_tokens, size) + columns).flatten()


def tile_by_itself(query: Tensor, key: Tensor) -> Tensor:
    """A number for each tile that no other tile has."""
    return (query << 31) + key


def relabelled(values: Tensor) -> tuple[Tensor, int]:
    """Small numbers in place of large ones, equal where those were equal, and one more than the largest of them."""
    if values.numel() == 0:
        return values, 1
    low, high = (int(end) for end in values.aminmax())
    if high - low < 2**24:
        # Cheaper than a sort.
        used = torch.zeros(high - low + 1, dtype=torch.int64, device=values.device)
        used[values - low] = 1
        names = used.cumsum(0)
        return names[values - low] - 1, int(names[-1])
    distinct, names = values.unique(return_inverse=True)
    return names, distinct.numel()
