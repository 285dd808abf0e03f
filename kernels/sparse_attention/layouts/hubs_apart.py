"""Blocks, and beside them the few keys that every query sees and the few queries that see every key.

Scattered over the sequence, each such token would make a row or column of blocks of its own, nearly empty. Here copies
of them stand side by side behind the sequence, where they fill whole blocks, and attention goes over the longer
sequence as over any other: one pass, no partial results to merge. What a copy gets is its original's.

Shapes: N tokens, B block_size, P = N rounded up to whole blocks, C keys and R queries apart, L tokens of the longer
sequence: P + max(C, R), rounded up alike; e entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import pairwise

import torch
from torch import Tensor

from .bit_masks import pack_bits, unpack_bits
from .block_lists import WHOLE
from .block_sparse import BlockSparse
from .layout import Layout, whole_numbers
from .normal_mode import in_normal_mode

PAIRS_AT_ONCE = 2**22
"""Pairs of masks that are cut at once: 32 MiB, since a bit takes eight bytes on the way."""

_Entries = tuple[Tensor, Tensor, Tensor]
"""Rows, columns and masks, (e,) int64 each."""


class HubsApart(Layout):
    """What a block sparse layout says, and keys that every query sees, and queries that see every key.

    rest:    of as many keys as queries, with the same lists for all heads. What it says of the keys and queries
             below does not matter: a pair counts once.
    columns: positions of the keys that every query sees, such as hubs; none twice.
    rows:    positions of the queries that see every key; none twice.

    blocks: the layout of the longer sequence: token P + i is as a key columns[i], and as a query rows[i].

    Raises ValueError for a layout of other keys than queries or of lists per head, for positions that do not exist or
    are given twice, and where there are none at all.
    """

    kind = "block sparse with hubs apart"

    @in_normal_mode
    def __init__(self, rest: BlockSparse, *, columns: Sequence[int] = (), rows: Sequence[int] = ()) -> None:
        if not isinstance(rest, BlockSparse) or rest.num_keys != rest.num_tokens or rest.num_heads is not None:
            raise ValueError(
                f"rest: expected as many keys as queries and lists that all heads share, got {rest}; store it as "
                f"block sparse alone"
            )
        if not (columns or rows):
            raise ValueError("columns=() and rows=(): expected a position; without any, store rest alone")
        self.num_keys = self._num_tokens = rest.num_tokens
        self.columns, self.rows = _checked("columns", columns, rest), _checked("rows", rows, rest)
        self.columns_index = torch.tensor(self.columns, dtype=torch.int64, device=rest.device)
        self.rows_index = torch.tensor(self.rows, dtype=torch.int64, device=rest.device)
        self.blocks = _longer(rest, self.columns_index, self.rows_index)

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    @property
    def block_size(self) -> int:
        return self.blocks.block_size

    @property
    def first_copy(self) -> int:
        """P, where the copies begin in the longer sequence; zeros stand between it and the last token."""
        return -(-self._num_tokens // self.block_size) * self.block_size

    @property
    def device(self) -> torch.device:
        return self.blocks.device

    @property
    def rest(self) -> BlockSparse:
        """The pairs of keys and queries that are not apart, over the N tokens."""
        lists, num_blocks = self.blocks.lists, self.first_copy // self.block_size
        row = lists.row_of_entry
        ours = (row < num_blocks) & (lists.blocks < num_blocks)
        return BlockSparse(
            row[ours], lists.blocks[ours], lists.masks[ours], self.blocks.mask_words,
            block_size=self.block_size, num_tokens=self._num_tokens, validate=False,
        )  # fmt: skip

    @property
    def num_edges(self) -> int:
        return self.blocks.num_edges

    @property
    def degrees(self) -> Tensor:
        degrees = self.rest.degrees + len(self.rows)
        degrees[self.columns_index] = self._num_tokens
        return degrees

    def build(self) -> None:
        self.blocks.build()
        for index in (self.columns_index, self.rows_index):
            torch._dynamo.maybe_mark_dynamic(index, 0)

    @in_normal_mode
    def to(self, device: torch.device | str) -> HubsApart:
        blocks = self.blocks.to(device)
        if blocks is self.blocks:
            return self
        moved = copy(self)
        moved.blocks = blocks
        moved.columns_index, moved.rows_index = self.columns_index.to(device), self.rows_index.to(device)
        return moved

    def dense_mask(self) -> Tensor:
        mask = self.rest.dense_mask()
        mask[:, self.columns_index] = True
        mask[self.rows_index] = True
        return mask

    def __repr__(self) -> str:
        return (
            f"HubsApart({self._num_tokens} queries and keys, {len(self.columns)} keys and {len(self.rows)} queries "
            f"apart, {self.blocks.num_entries} blocks of {self.block_size}, {self.blocks.mask_words.shape[0]} masks, "
            f"{self.device})"
        )


def _checked(name: str, positions: Sequence[int], rest: BlockSparse) -> tuple[int, ...]:
    positions = whole_numbers(name, positions)
    for position in positions:
        if not 0 <= position < rest.num_tokens:
            raise ValueError(f"{name}: token {position} does not exist; expected 0 to {rest.num_tokens - 1}")
    ascending = sorted(positions)
    for position, following in pairwise(ascending):
        if position == following:
            raise ValueError(f"{name}: token {position} is listed twice")
    return tuple(ascending)


def _longer(rest: BlockSparse, columns: Tensor, rows: Tensor) -> BlockSparse:
    """The blocks of the longer sequence: those of `rest`, then of all others with the keys apart, then of the queries
    apart with all keys."""
    size, num_blocks, device, lists = rest.block_size, rest.num_rows, rest.device, rest.lists
    listed = lists.row_of_entry, lists.blocks.long(), lists.masks.long()
    block = torch.arange(num_blocks, device=device)
    copies_of_keys, copies_of_queries = (
        torch.arange(-(-len(apart) // size), device=device) for apart in (columns, rows)
    )
    # Which queries and keys of each block may see and be seen, at their own places.
    exists = (torch.arange(num_blocks * size, device=device) < rest.num_tokens).view(-1, size)
    not_apart_as_key, not_apart_as_query = exists.clone(), exists.clone()
    not_apart_as_key.view(-1)[columns] = False
    not_apart_as_query.view(-1)[rows] = False
    is_key, is_query = (
        (torch.arange(len(copies) * size, device=device) < len(apart)).view(-1, size)
        for copies, apart in ((copies_of_keys, columns), (copies_of_queries, rows))
    )
    parts = (
        (listed, not_apart_as_query, not_apart_as_key, 0, 0),
        (_all(block, copies_of_keys), not_apart_as_query, is_key, 0, num_blocks),
        (_all(copies_of_queries, block), is_query, exists, num_blocks, 0),
    )
    words, found = [rest.mask_words], []
    for entries, open_queries, open_keys, first_row, first_column in parts:
        before = torch.cat(words)
        (row, column, mask), more = _cut(entries, before, open_queries, open_keys)
        found.append((row + first_row, column + first_column, mask))
        words.append(more)
    row, column, mask = (torch.cat(part) for part in zip(*found, strict=True))
    # Whole blocks to the end, so that nothing has to be cut off again, and no kernel looks for it.
    length = (num_blocks + max(len(copies_of_keys), len(copies_of_queries))) * size
    return BlockSparse(row, column, mask, torch.cat(words), block_size=size, num_tokens=length, validate=False)


def _all(rows: Tensor, columns: Tensor) -> _Entries:
    """Every row with every column, whole."""
    row, column = rows.repeat_interleave(len(columns)), columns.repeat(len(rows))
    return row, column, torch.full_like(row, WHOLE)


def _cut(entries: _Entries, words: Tensor, open_rows: Tensor, open_columns: Tensor) -> tuple[_Entries, Tensor]:
    """The entries that hold a pair of an open row and an open column, (blocks, B) bool each, with masks in which no
    other pair counts; and the words of the masks that are new, numbered from the end of `words` on."""
    row, column, mask = entries
    cut = (~(open_rows.all(1)[row] & open_columns.all(1)[column])).nonzero().squeeze(1)
    if cut.numel() == 0:
        return entries, words[:0]
    row_kinds, kind_of_row = open_rows.unique(dim=0, return_inverse=True)
    column_kinds, kind_of_column = open_columns.unique(dim=0, return_inverse=True)
    # Of the entries that look alike, one is cut.
    kind = (mask[cut] + 1) * len(row_kinds) + kind_of_row[row[cut]]
    kinds, which = (kind * len(column_kinds) + kind_of_column[column[cut]]).unique(return_inverse=True)
    rows_of_kinds, columns_of_kinds = kinds // len(column_kinds), kinds % len(column_kinds)
    size, found = open_rows.shape[1], []
    # First, where WHOLE points, comes a mask that hides nothing.
    before = torch.cat((pack_bits(open_rows.new_ones((1, size, size))), words))
    for part in torch.arange(len(kinds), device=cut.device).split(max(1, PAIRS_AT_ONCE // size**2)):
        bits = unpack_bits(before[rows_of_kinds[part] // len(row_kinds)], size)
        bits = bits & row_kinds[rows_of_kinds[part] % len(row_kinds)][:, :, None]
        bits = bits & column_kinds[columns_of_kinds[part]][:, None, :]
        found.append(pack_bits(bits))
    new = torch.cat(found)
    mask = mask.index_copy(0, cut, words.shape[0] + which)
    kept = torch.ones_like(mask, dtype=torch.bool)
    kept[cut] = (new != 0).flatten(1).any(dim=1)[which]
    return (row[kept], column[kept], mask[kept]), new
