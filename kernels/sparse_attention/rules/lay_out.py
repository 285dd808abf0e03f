"""From a rule to the layout that costs least, or to the one that is asked for."""

from __future__ import annotations

from typing import Literal

import torch

from ..layouts import Dense, Layout
from ..layouts.block_sparse import BLOCK_SIZES
from ..triton import MOST_SLOTS
from .rule import Rule, num_blocks
from .steps import Everything
from .to_block_sparse import to_block_sparse
from .to_index_list import to_index_list

Choice = Literal["auto", "index_list", "block_sparse"]
CHOICES: tuple[Choice, ...] = ("auto", "index_list", "block_sparse")

EDGE_NS = {"cuda": 0.14, "cpu": 160.0}
"""An edge of an index list, forward and backward, for one head: 1.36 ms for 100,000 queries x 8 keys x 12 heads of 64
on an H100, 0.54 s for 100,000 x 17 x 2 heads of 32 with the reference on two CPU cores (docs/benchmarks.md)."""

PAIR_NS = {"cuda": 0.003, "cpu": 40.0}
"""A query and a key of a block, allowed or not, of the same: 2.13 ms for 98,304 queries x 12 heads that see a window of
513 keys in 9 blocks of 64 on an H100. On two CPU cores the reference needs 17 ns in long rows such as these and twice
as much in short ones, which are those that the choice is about."""

SAMPLED_ROWS = 16
"""Blocks of queries from which the cost of a pattern is estimated."""


def lay_out(rule: Rule, num_tokens: int, *, layout: Choice = "auto", block_size: int = 64) -> Layout:
    """The layout that stands for `rule` over `num_tokens` tokens, with the rule on it.

    layout: "index_list", "block_sparse", or "auto": what is estimated to cost less time. On a GPU a block pays as soon
    as one in 48 of its pairs is allowed, on a CPU if one in 4 is. Where the pattern will be used is not known yet:
    it is taken to be a GPU if the machine has one.

    Raises ValueError for an unknown layout or block size.
    """
    if layout not in CHOICES:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(CHOICES)}")
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"block_size={block_size}: expected one of {', '.join(map(str, BLOCK_SIZES))}")
    if isinstance(rule, Everything):
        built = Dense(num_tokens, causal=rule.causal)
    elif layout == "index_list" or (layout == "auto" and not _blocks_cost_less(rule, num_tokens, block_size)):
        built = to_index_list(rule, num_tokens)
    else:
        built = to_block_sparse(rule, num_tokens, block_size)
    built.rule = rule
    return built


def _blocks_cost_less(rule: Rule, num_tokens: int, block_size: int) -> bool:
    heads = [rule.for_head(head) for head in range(rule.num_heads or 1)]
    if any(head.num_slots(num_tokens) > MOST_SLOTS for head in heads):
        return True
    if any(set(head.full_rows(num_tokens)) != set(heads[0].full_rows(num_tokens)) for head in heads):
        return True
    edges, tiles = (
        sum(counts) for counts in zip(*(_sample(head, num_tokens, block_size) for head in heads), strict=True)
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return tiles * block_size**2 * PAIR_NS[device] < edges * EDGE_NS[device]


def _sample(rule: Rule, num_tokens: int, size: int) -> tuple[int, int]:
    """Edges, and tiles that hold them, of some blocks of queries. Queries that see everything cost alike either way."""
    rows = num_blocks(num_tokens, size)
    row = torch.linspace(0, rows - 1, min(rows, SAMPLED_ROWS), dtype=torch.float64).round().long()
    query = (row[:, None] * size + torch.arange(size)).flatten()
    full = torch.tensor(rule.full_rows(num_tokens), dtype=torch.int64)
    query = query[(query < num_tokens) & ~torch.isin(query, full)]
    keys = rule.keys(query, num_tokens)
    tiles = query.div(size, rounding_mode="floor")[:, None] * rows + keys.div(size, rounding_mode="floor")
    edges = keys >= 0
    return int(edges.sum()), tiles[edges].unique().numel()
