"""Which blocks of keys each block of queries sees; masks say which pairs count where a block is not seen as a whole.

Shapes: N queries, M keys, B block_size, R = ceil(N / B) rows of blocks, C = ceil(M / B) columns, H heads, E entries
(a block of queries that sees a block of keys), U different masks, W = max(1, B / 32) words of a row of a mask.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property

import torch
from torch import Tensor

from .bit_masks import pack_bits, transpose_bits, unpack_bits, words_of
from .block_lists import WHOLE, BlockLists
from .block_work import BlockWork
from .layout import EMPTY, Layout
from .normal_mode import as_normal, in_normal_mode

BLOCK_SIZES = (16, 32, 64, 128)
CHUNK_ENTRIES = 2**16
"""Entries whose keys are counted at once."""


class BlockSparse(Layout):
    """Lists of key blocks for each block of queries, with a mask for each block that is not seen as a whole.

    An entry may occur once only; a query sees a key or it does not. Lengths need not be multiples of the block size:
    keys beyond the end are masked here.

    rows:       (E,) int; block of queries of each entry; per head pattern: head * R + block.
    blocks:     (E,) int; block of keys of each entry.
    masks:      (E,) int; which of `mask_words` holds for the entry, or -1 where every pair counts; all -1 if not given.
    mask_words: (U, B, W) int32; bit j of word w of row i says whether query i of the block sees key 32 w + j of it.
    block_size: B, one of 16, 32, 64, 128.
    num_tokens: N, the number of queries.
    num_keys:   M, the length of k; N where it is not given.
    num_heads:  H of a pattern of its own per head; None when all heads share one.
    validate:   False skips the checks of the entries' values, which wait for the device.

    Raises ValueError for an unknown block size, for tensors of the wrong shape or dtype, and for entries out of range
    or given twice, naming the first bad one.
    """

    kind = "block sparse"

    @in_normal_mode
    def __init__(
        self,
        rows: Tensor,
        blocks: Tensor,
        masks: Tensor | None = None,
        mask_words: Tensor | None = None,
        *,
        block_size: int,
        num_tokens: int,
        num_keys: int | None = None,
        num_heads: int | None = None,
        validate: bool = True,
    ) -> None:
        _check_block_size(block_size)
        self.block_size = block_size
        self.num_keys = num_tokens if num_keys is None else num_keys
        self._num_tokens, self._num_heads = num_tokens, num_heads
        heads = 1 if num_heads is None else num_heads
        for name, length in (("num_tokens", num_tokens), ("num_keys", self.num_keys), ("num_heads", heads)):
            if isinstance(length, float) or not 1 <= length < 2**31:
                raise ValueError(f"{name}={length}: expected 1 to {2**31 - 1}, a whole number")
        if not (isinstance(rows, Tensor) and isinstance(blocks, Tensor)):
            raise ValueError(f"rows, blocks: expected tensors, got {type(rows).__name__} and {type(blocks).__name__}")
        masks = torch.full_like(blocks, WHOLE) if masks is None else masks
        if mask_words is None:
            mask_words = torch.empty((0, block_size, words_of(block_size)), dtype=torch.int32, device=blocks.device)
        _check_shapes(rows, blocks, masks, mask_words, block_size)
        if validate:
            _check_range("rows", rows, 0, self.num_rows * (num_heads or 1))
            _check_range("blocks", blocks, 0, self.num_columns)
            _check_range("masks", masks, WHOLE, mask_words.shape[0])
            _check_once(rows, blocks, self.num_columns)
        masks, mask_words = self._without_what_lies_beyond_the_end(rows, blocks, masks, mask_words)
        self.mask_words = as_normal(mask_words)
        self.lists = BlockLists.build(rows, blocks, masks, self.num_rows * (num_heads or 1))
        self._transposed: BlockLists | None = None
        self._transposed_mask_words: Tensor | None = None
        self._work: BlockWork | None = None
        self._transposed_work: BlockWork | None = None

    @classmethod
    def from_table(cls, table: Tensor, *, block_size: int, num_tokens: int, num_keys: int | None = None) -> BlockSparse:
        """From a table of key blocks, (R, n) or (H, R, n) int, -1 where a slot is empty; every block counts whole.

        Raises ValueError as the constructor does, and for a table with another number of rows than R.
        """
        _check_block_size(block_size)
        num_rows = -(-num_tokens // block_size)
        if table.dim() not in (2, 3) or table.shape[-2] != num_rows:
            raise ValueError(
                f"table: expected shape (rows, slots) or (heads, rows, slots) with {num_rows} rows for {num_tokens} "
                f"tokens in blocks of {block_size}, got {tuple(table.shape)}"
            )
        flat = table.flatten(0, -2)
        if flat.numel() == 0:
            raise ValueError(f"table: expected one slot or more for each row, got shape {tuple(table.shape)}")
        if bool((flat < EMPTY).any()):
            raise ValueError(f"table: holds {int(flat.min())}; expected a block of keys from 0 up, or -1 for none")
        rows, slots = (flat >= 0).nonzero(as_tuple=True)
        return cls(
            rows, flat[rows, slots], block_size=block_size, num_tokens=num_tokens, num_keys=num_keys,
            num_heads=table.shape[0] if table.dim() == 3 else None,
        )  # fmt: skip

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    @property
    def num_heads(self) -> int | None:
        return self._num_heads

    @property
    def num_rows(self) -> int:
        """R, blocks of queries."""
        return -(-self._num_tokens // self.block_size)

    @property
    def num_columns(self) -> int:
        """C, blocks of keys."""
        return -(-self.num_keys // self.block_size)

    @property
    def num_entries(self) -> int:
        """E, over all heads of a per-head pattern."""
        return self.lists.blocks.shape[0]

    @property
    def device(self) -> torch.device:
        return self.lists.blocks.device

    @property
    @in_normal_mode
    def transposed(self) -> BlockLists:
        """The same entries by block of keys; built at first use and shared by everyone who holds this layout."""
        if self._transposed is None:
            head, row = self._head_and_row_of_entry
            columns = head * self.num_columns + self.lists.blocks
            num_lists = self.num_columns * (self.num_heads or 1)
            self._transposed = BlockLists.build(columns, row, self.lists.masks, num_lists)
        return self._transposed

    @property
    @in_normal_mode
    def transposed_mask_words(self) -> Tensor:
        """(U, B, W) int32: bit j of word w of row i says whether key i of the block is seen by query 32 w + j of it."""
        if self._transposed_mask_words is None:
            self._transposed_mask_words = transpose_bits(self.mask_words)
        return self._transposed_mask_words

    @property
    @in_normal_mode
    def work(self) -> BlockWork:
        """How kernels share out the rows among programs; built at first use, as `transposed` is."""
        if self._work is None:
            self._work = BlockWork.build(self.lists, self.block_size)
        return self._work

    @property
    @in_normal_mode
    def transposed_work(self) -> BlockWork:
        """The same for the rows of `transposed`."""
        if self._transposed_work is None:
            self._transposed_work = BlockWork.build(self.transposed, self.block_size)
        return self._transposed_work

    def build(self) -> None:
        """Make everything that attention and its gradient need, as torch.compile wants to find it.

        Numbers of entries, masks and so on are marked as varying, so that nothing is compiled again for another length.
        """
        words = (self.mask_words, self.transposed_mask_words)
        parts = (self.lists, self.transposed, self.work, self.transposed_work)
        for tensor in (*words, *(tensor for part in parts for tensor in vars(part).values())):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)

    def is_built(self, transposed: bool) -> bool:
        """Whether `work` exists, and what is transposed too if that is asked for."""
        by_column = (self._transposed, self._transposed_mask_words, self._transposed_work)
        return self._work is not None and not (transposed and any(part is None for part in by_column))

    @property
    def _head_and_row_of_entry(self) -> tuple[Tensor, Tensor]:
        """(E,) int64 each; the head is 0 where all heads share the lists."""
        row = self.lists.row_of_entry
        return row // self.num_rows, row % self.num_rows

    @cached_property
    def num_edges(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return int(self.degrees.sum())

    @property
    def degrees(self) -> Tensor:
        size, lists = self.block_size, self.lists
        head, row = self._head_and_row_of_entry
        column, partial, heads = head * self.num_columns + lists.blocks, lists.masks != WHOLE, self.num_heads or 1
        queries = (self.num_tokens - row * size).clamp(max=size).masked_fill(partial, 0)
        of_whole_blocks = torch.zeros(heads * self.num_columns, dtype=torch.int64, device=self.device)
        total = of_whole_blocks.index_add_(0, column, queries).unsqueeze(1).repeat(1, size)
        queries_of_mask = self.mask_bits.sum(dim=1)
        # In chunks, since there may be many more entries than masks or columns.
        for entries in partial.nonzero().squeeze(1).split(CHUNK_ENTRIES):
            total.index_add_(0, column[entries], queries_of_mask[lists.masks[entries].long()])
        total = total.view(heads, -1)[:, : self.num_keys]
        return total if self.num_heads else total[0]

    @property
    def mask_bits(self) -> Tensor:
        """(U, B, B) bool: `mask_words`, bit by bit."""
        return unpack_bits(self.mask_words, self.block_size)

    @in_normal_mode
    def to(self, device: torch.device | str) -> BlockSparse:
        if self.lists.blocks.to(device) is self.lists.blocks:
            return self
        moved = copy(self)
        moved.mask_words, moved.lists = self.mask_words.to(device), self.lists.to(device)
        for name in ("_transposed", "_transposed_mask_words", "_work", "_transposed_work"):
            built = getattr(self, name)
            setattr(moved, name, None if built is None else built.to(device))
        return moved

    def dense_mask(self) -> Tensor:
        size, heads, lists = self.block_size, self.num_heads or 1, self.lists
        whole = torch.ones(1, size, size, dtype=torch.bool, device=self.device)
        tiles = torch.zeros(heads * self.num_rows, self.num_columns, size, size, dtype=torch.bool, device=self.device)
        tiles[lists.row_of_entry, lists.blocks.long()] = torch.cat((self.mask_bits, whole))[lists.masks.long()]
        mask = tiles.view(heads, self.num_rows, self.num_columns, size, size).transpose(2, 3)
        mask = mask.reshape(heads, self.num_rows * size, -1)[:, : self.num_tokens, : self.num_keys]
        return mask if self.num_heads else mask[0]

    def __repr__(self) -> str:
        heads = "" if self.num_heads is None else f"{self.num_heads} heads x "
        table = (
            f"{heads}{self.num_tokens} queries, {self.num_keys} keys, {self.num_entries} blocks of {self.block_size}"
        )
        return f"BlockSparse({table}, {self.mask_words.shape[0]} masks, {self.device})"

    def _without_what_lies_beyond_the_end(
        self, rows: Tensor, blocks: Tensor, masks: Tensor, mask_words: Tensor
    ) -> tuple[Tensor, Tensor]:
        """masks and mask_words in which no pair counts whose key, or in a partial block whose query, does not exist."""
        size, keys_beyond = self.block_size, self.num_keys % self.block_size
        last_column = (blocks == self.num_columns - 1) & (keys_beyond > 0)
        last_row = (rows % self.num_rows == self.num_rows - 1) & (self.num_tokens % size > 0) & (masks != WHOLE)
        cut = (last_column | last_row).nonzero().squeeze(-1)
        if cut.numel() == 0:
            return masks, mask_words
        position = torch.arange(size, device=masks.device)
        bits = torch.cat((unpack_bits(mask_words, size), mask_words.new_ones(1, size, size, dtype=torch.bool)))
        bits = bits[masks[cut].long()]
        bits &= (position < (self.num_keys - blocks[cut] * size)[:, None])[:, None, :]
        bits &= (position < (self.num_tokens - rows[cut] % self.num_rows * size)[:, None])[:, :, None]
        words, which = pack_bits(bits).flatten(1).unique(dim=0, return_inverse=True)
        masks = masks.clone()
        masks[cut] = (mask_words.shape[0] + which).to(masks.dtype)
        return masks, torch.cat((mask_words, words.view(-1, *mask_words.shape[1:])))


def _check_block_size(block_size: int) -> None:
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"block_size={block_size}: expected one of {', '.join(map(str, BLOCK_SIZES))}")


def _check_shapes(rows: Tensor, blocks: Tensor, masks: Tensor, mask_words: Tensor, block_size: int) -> None:
    for name, tensor in (("rows", rows), ("blocks", blocks), ("masks", masks)):
        if tensor.dtype not in (torch.int32, torch.int64) or tensor.shape != rows.shape or tensor.dim() != 1:
            raise ValueError(
                f"{name}: expected an int32 or int64 tensor of shape (entries,), as many as rows, "
                f"got {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
            )
    expected = (block_size, words_of(block_size))
    if mask_words.dtype != torch.int32 or mask_words.dim() != 3 or tuple(mask_words.shape[1:]) != expected:
        raise ValueError(
            f"mask_words: expected an int32 tensor of shape (masks, {expected[0]}, {expected[1]}) for "
            f"block_size={block_size}, got {str(mask_words.dtype).removeprefix('torch.')} {tuple(mask_words.shape)}"
        )


def _check_range(name: str, values: Tensor, low: int, end: int) -> None:
    bad = ((values < low) | (values >= end)).nonzero()
    if bad.numel():
        entry = int(bad[0])
        raise ValueError(f"{name}: entry {entry} holds {int(values[entry])}; expected {low} to {end - 1}")


def _check_once(rows: Tensor, blocks: Tensor, num_columns: int) -> None:
    pairs, counts = (rows.long() * num_columns + blocks).unique(return_counts=True)
    if pairs.numel() < rows.numel():
        row, block = divmod(int(pairs[counts > 1][0]), num_columns)
        raise ValueError(f"blocks: row {row} lists block {block} twice; an entry may occur once only")
