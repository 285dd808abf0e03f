"""From a rule to the table of keys of each query."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import EMPTY, IndexList
from .rule import Rule

CHUNK_ELEMENTS = 2**20
"""Slots that are worked out at once: 8 MiB of int64."""


def to_index_list(rule: Rule, num_tokens: int) -> IndexList:
    """Each key once in a row. Rows whose keys do not come in ascending order, or waste slots in all rows, are sorted
    and padded with -1; others stay as the rule gives them, with slots of keys outside the sequence empty in place.

    Raises ValueError for a per-head rule in which other queries see everything from head to head.
    """
    if rule.num_heads is None:
        return IndexList(_table(rule, num_tokens), full_rows=rule.full_rows(num_tokens), validate=False)
    heads = [rule.for_head(head) for head in range(rule.num_heads)]
    full_rows = heads[0].full_rows(num_tokens)
    if any(set(head.full_rows(num_tokens)) != set(full_rows) for head in heads):
        raise ValueError(
            "layout=index_list: the queries that see every key differ from head to head, which an index list cannot "
            "say; use layout=block_sparse"
        )
    tables = [_table(head, num_tokens) for head in heads]
    return IndexList(torch.stack(same_width(tables)), full_rows=full_rows, validate=False)


def same_width(tables: list[Tensor]) -> list[Tensor]:
    """The tables with empty slots behind those that have fewer than the widest."""
    width = max(table.shape[1] for table in tables)
    return [torch.nn.functional.pad(table, (0, width - table.shape[1]), value=EMPTY) for table in tables]


def _table(rule: Rule, num_tokens: int) -> Tensor:
    """(N, n) int32."""
    queries = torch.arange(num_tokens)
    full_rows = rule.full_rows(num_tokens)
    if full_rows:
        others = torch.ones(num_tokens, dtype=torch.bool)
        others[list(full_rows)] = False
        queries = queries[others]
    table = torch.empty((num_tokens, 0), dtype=torch.int32)
    for chunk in queries.split(max(1, CHUNK_ELEMENTS // max(1, rule.num_slots(num_tokens)))):
        keys = _tidy(rule.keys(chunk, num_tokens).int())
        if keys.shape[1] > table.shape[1]:
            # All chunks but those at the ends have about the same width, so that this happens once or twice.
            table = torch.nn.functional.pad(table, (0, keys.shape[1] - table.shape[1]), value=EMPTY)
        table[chunk, : keys.shape[1]] = keys
    return table


def _tidy(keys: Tensor) -> Tensor:
    """The same rows, at least one slot wide."""
    used = int((keys >= 0).sum(dim=1).max()) if keys.numel() else 0
    if used == 0:
        return keys.new_full((keys.shape[0], 1), EMPTY)
    left, right = keys[:, :-1], keys[:, 1:]
    if used == keys.shape[1] and bool(((left < right) | (right < 0)).all()):
        return keys
    beyond = torch.iinfo(torch.int32).max
    keys = keys.masked_fill(keys < 0, beyond).sort(dim=1).values[:, :used]
    return keys.masked_fill(keys == beyond, EMPTY)
