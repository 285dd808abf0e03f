"""What the layouts of a rule are estimated to cost, in nanoseconds of all heads together, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ..triton import MOST_SLOTS
from .parts import Parts, union_of
from .rule import Rule, num_blocks

Choice = Literal["auto", "index_list", "block_sparse", "hubs_apart", "in_parts"]

EDGE_NS = {"cuda": 0.14, "cpu": 160.0}
"""An edge of an index list, forward and backward, for one head: 1.36 ms for 100,000 queries x 8 keys x 12 heads of 64
on an H100, 0.54 s for 100,000 x 17 x 2 heads of 32 with the reference on two CPU cores (docs/benchmarks.md)."""

PAIR_NS = {"cuda": 0.003, "cpu": 40.0}
"""A query and a key of a block, allowed or not, of the same: 2.13 ms for 98,304 queries x 12 heads that see a window of
513 keys in 9 blocks of 64 on an H100. On two CPU cores the reference needs 17 ns in long rows such as these and twice
as much in short ones, which are those that the choice is about."""

ROW_NS = {"cuda": 0.05, "cpu": 26.0}
"""A row of 64 that is read or written once: in bfloat16 at 2.5 TB/s, in float32 at 10 GB/s."""

ROWS_OF_APART = 17
"""Rows a query that hubs apart read or write beside attention: copies of q, k and v, forward and again backward, and
two of the gradient of out."""

ROWS_OF_FULL_ROWS = 18
"""Rows a query for queries that see every key, beside an index list: a copy of out with theirs in it, one of its
gradient without, gradients of k and v added up, and those of q, k and v made one."""

ROWS_OF_PARTS = 17
"""Rows a query for a second part: two outputs merged, two gradients made of one, and the gradients of q, k and v added
up."""

SAMPLED_ROWS = 16
"""Blocks of queries from which the cost of a pattern is estimated."""


@dataclass(frozen=True)
class Costs:
    """num_tokens: N; size: of a block; device: "cuda" or "cpu"."""

    num_tokens: int
    size: int
    device: str

    def cheapest(self, parts: Parts) -> Choice:
        """The layout with the lowest cost."""
        ns: dict[Choice, float] = self._of_hubs(parts)
        heads = [parts.rest.for_head(head) for head in range(parts.rest.num_heads or 1)]
        if self._fit_lists(heads):
            edges, tiles = (sum(counts) for counts in zip(*map(self._sample, heads), strict=True))
            ns = {choice: cost + tiles for choice, cost in ns.items()}
            if max(head.num_slots(self.num_tokens) for head in heads) + len(parts.columns) <= MOST_SLOTS:
                columns = len(parts.columns) * self.num_tokens * EDGE_NS[self.device]
                ns = {"index_list": edges + columns + self._of_full_rows(parts.rows), **ns}
            listed, blocks = self.split(parts)
            if listed and (blocks.members or blocks.has_hubs):
                beside = min(self._of_hubs(blocks).values()) + self._sample(blocks.rest)[1]
                merge = self.num_tokens * ROWS_OF_PARTS * ROW_NS[self.device]
                ns["in_parts"] = self._sample(union_of(listed))[0] + beside + merge
        return min(ns, key=lambda choice: ns[choice])

    def split(self, parts: Parts) -> tuple[tuple[Rule, ...], Parts]:
        """The members of a union that cost less as lists, and all the rest with the hubs."""
        if parts.rest.num_heads is not None:
            return (), parts
        listed = tuple(member for member in parts.members if self._is_for_a_list(member))
        return listed, parts._replace(members=tuple(member for member in parts.members if member not in listed))

    def are_worth_a_place_apart(self, parts: Parts) -> bool:
        """Whether hubs cost less apart than in blocks at their own places."""
        ns = self._of_hubs(parts)
        return min(ns, key=lambda choice: ns[choice]) == "hubs_apart"

    def _of_hubs(self, parts: Parts) -> dict[Choice, float]:
        """Beside blocks, at their own places or apart. Each block that holds one, or that they fill, is seen all along
        the sequence."""
        blocks, hubs = num_blocks(self.num_tokens, self.size), (parts.columns, parts.rows)
        at_home = blocks * sum(len({position // self.size for position in positions}) for positions in hubs)
        ns: dict[Choice, float] = {"block_sparse": at_home * self._tile_ns}
        if parts.has_hubs:
            filled = blocks * sum(num_blocks(len(positions), self.size) for positions in hubs)
            copies = self.num_tokens * ROWS_OF_APART * ROW_NS[self.device]
            ns["hubs_apart"] = filled * self._tile_ns + copies
        return ns

    def _of_full_rows(self, rows: Sequence[int]) -> float:
        """Beside an index list: in blocks of their own on a GPU, one by one on a CPU."""
        if not rows:
            return 0.0
        held = num_blocks(len(rows), self.size) * self.size if self.device == "cuda" else len(rows)
        return self.num_tokens * (held * PAIR_NS[self.device] + ROWS_OF_FULL_ROWS * ROW_NS[self.device])

    def _is_for_a_list(self, rule: Rule) -> bool:
        if not self._fit_lists([rule]):
            return False
        as_list, as_blocks = self._sample(rule)
        return as_list < as_blocks

    def _fit_lists(self, heads: Sequence[Rule]) -> bool:
        full_rows = [set(head.full_rows(self.num_tokens)) for head in heads]
        fits = all(head.num_slots(self.num_tokens) <= MOST_SLOTS for head in heads)
        return fits and all(rows == full_rows[0] for rows in full_rows)

    @property
    def _tile_ns(self) -> float:
        return self.size**2 * PAIR_NS[self.device]

    def _sample(self, rule: Rule) -> tuple[float, float]:
        """As a list and as blocks, judged by some blocks of queries; those that see everything are left out."""
        rows = num_blocks(self.num_tokens, self.size)
        row = torch.linspace(0, rows - 1, min(rows, SAMPLED_ROWS), dtype=torch.float64).round().long()
        query = (row[:, None] * self.size + torch.arange(self.size)).flatten()
        full = torch.tensor(rule.full_rows(self.num_tokens), dtype=torch.int64)
        query = query[(query < self.num_tokens) & ~torch.isin(query, full)]
        keys = rule.keys(query, self.num_tokens)
        is_edge = keys >= 0
        tiles = query.div(self.size, rounding_mode="floor")[:, None] * rows + keys.div(self.size, rounding_mode="floor")
        times = rows / row.numel()
        edges, tiles = int(is_edge.sum()) * times, tiles[is_edge].unique().numel() * times
        return edges * EDGE_NS[self.device], tiles * self._tile_ns
