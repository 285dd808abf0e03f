"""How many attended pairs fall into each cell of a grid over queries and keys, in time that grows with the edges.

A cell is `query_cell` queries times `key_cell` keys; the last ones may be smaller. Cells of one pair are the pattern
itself, cells of whole columns or rows its degrees and its keys per query. Layouts are on the CPU here.
"""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from ..layouts import BlockSparse, Dense, HubsApart, IndexList, InParts, Layout
from ..layouts.bit_masks import unpack_bits
from ..layouts.block_sparse import WHOLE

SLOTS_AT_ONCE = 2**23
ENTRIES_AT_ONCE = 2**11


@singledispatch
def pairs_by_cell(layout: Layout, query_cell: int, key_cell: int) -> Tensor:
    """(ceil(N / query_cell), ceil(M / key_cell)) int64 for a layout without heads; a key listed twice counts twice.

    Raises ValueError for a kind of layout that is not known here.
    """
    raise ValueError(f"pattern: a layout of the kind {type(layout).__name__} cannot be drawn")


@pairs_by_cell.register
def _(layout: IndexList, query_cell: int, key_cell: int) -> Tensor:
    num_rows, num_columns = -(-layout.num_tokens // query_cell), -(-layout.num_keys // key_cell)
    pairs = torch.zeros(num_rows * num_columns, dtype=torch.int64)
    row = torch.arange(layout.num_tokens) // query_cell
    rows_at_once = max(1, SLOTS_AT_ONCE // layout.num_slots)
    for start in range(0, layout.num_tokens, rows_at_once):
        keys = layout.indices[start : start + rows_at_once]
        cell = row[start : start + rows_at_once, None] * num_columns + keys // key_cell
        pairs += cell[keys >= 0].bincount(minlength=pairs.numel())
    pairs = pairs.view(num_rows, num_columns)
    full = pairs.new_zeros(num_rows).index_add_(0, row[layout.full_rows_index], pairs.new_ones(len(layout.full_rows)))
    return pairs + full[:, None] * _edges_of_cells(layout.num_keys, key_cell).diff()


@pairs_by_cell.register
def _(layout: BlockSparse, query_cell: int, key_cell: int) -> Tensor:
    size, lists = layout.block_size, layout.lists
    num_rows, num_columns = -(-layout.num_tokens // query_cell), -(-layout.num_keys // key_cell)
    pairs = torch.zeros(num_rows * num_columns, dtype=torch.int64)
    rows, columns = lists.row_of_entry, lists.blocks.long()
    whole = torch.ones(1, size, size, dtype=torch.bool)
    for start in range(0, rows.numel(), ENTRIES_AT_ONCE):
        entries = slice(start, start + ENTRIES_AT_ONCE)
        masks, mask = lists.masks[entries].unique(return_inverse=True)
        bits = torch.cat((unpack_bits(layout.mask_words[masks[masks != WHOLE]], size), whole))
        # `unique` sorts, so that WHOLE comes first where it occurs; its bits are the last.
        mask = (mask - int((masks == WHOLE).sum())) % bits.shape[0]
        sums = bits.cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)
        sums = torch.nn.functional.pad(sums, (1, 0, 1, 0))
        row_cells, row_bounds = _cells_of_blocks(rows[entries], size, query_cell, layout.num_tokens)
        column_cells, column_bounds = _cells_of_blocks(columns[entries], size, key_cell, layout.num_keys)
        corners = sums[mask[:, None, None], row_bounds[:, :, None], column_bounds[:, None, :]]
        found = corners.diff(dim=1).diff(dim=2).long()
        cells = row_cells[:, :, None] * num_columns + column_cells[:, None, :]
        pairs.scatter_add_(0, cells.flatten(), found.flatten())
    return pairs.view(num_rows, num_columns)


@pairs_by_cell.register
def _(layout: HubsApart, query_cell: int, key_cell: int) -> Tensor:
    queries, keys = _edges_of_cells(layout.num_tokens, query_cell).diff(), _edges_of_cells(layout.num_keys, key_cell)
    columns = (layout.columns_index // key_cell).bincount(minlength=keys.numel() - 1)
    rows = (layout.rows_index // query_cell).bincount(minlength=queries.numel())
    apart = (queries - rows)[:, None] * columns + rows[:, None] * keys.diff()
    return pairs_by_cell(layout.rest, query_cell, key_cell) + apart


@pairs_by_cell.register
def _(layout: InParts, query_cell: int, key_cell: int) -> Tensor:
    return torch.stack([pairs_by_cell(part, query_cell, key_cell) for part in layout.parts]).sum(dim=0)


@pairs_by_cell.register
def _(layout: Dense, query_cell: int, key_cell: int) -> Tensor:
    queries = _edges_of_cells(layout.num_tokens, query_cell)[:, None]
    keys = _edges_of_cells(layout.num_keys, key_cell)[None, :]
    if not layout.causal:
        return queries.diff(dim=0) * keys.diff(dim=1)
    # Pairs of the first q queries and the first k keys in which no key comes after its query.
    both = torch.minimum(queries, keys)
    return (both * (both + 1) // 2 + (queries - both) * keys).diff(dim=0).diff(dim=1)


def share_by_cell(layout: Layout, query_cell: int, key_cell: int) -> Tensor:
    """`pairs_by_cell` over the number of pairs in each cell, float64."""
    queries = _edges_of_cells(layout.num_tokens, query_cell).diff()
    keys = _edges_of_cells(layout.num_keys, key_cell).diff()
    return pairs_by_cell(layout, query_cell, key_cell).double() / (queries[:, None] * keys)


def _edges_of_cells(length: int, cell: int) -> Tensor:
    """Where cells begin, and where the last one ends."""
    return (torch.arange(-(-length // cell) + 1) * cell).clamp(max=length)


def _cells_of_blocks(blocks: Tensor, size: int, cell: int, length: int) -> tuple[Tensor, Tensor]:
    """For each block, the cells (e, c) that it may touch, and where in the block (e, c + 1) each begins and ends."""
    start = blocks * size
    most = (size - 2) // cell + 2
    cells = start[:, None] // cell + torch.arange(most + 1)
    end = (length - start).clamp(max=size)
    bounds = (cells * cell - start[:, None]).clamp(min=0).minimum(end[:, None])
    return cells[:, :-1].clamp(max=-(-length // cell) - 1), bounds
