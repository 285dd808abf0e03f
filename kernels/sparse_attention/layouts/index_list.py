"""The keys of each query, listed one by one, and the same edges sorted by key for the backward pass.

Shapes: N queries, M keys, n slots a query, H heads. An edge is one (query, key) pair; its id is `query * n + slot`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .block_sparse import BlockSparse
from .layout import EMPTY, NOT_BUILT, Layout, whole_numbers
from .normal_mode import as_normal, in_normal_mode

BLOCK_SIZE = 64
"""Of the blocks in which full rows are stored."""


@dataclass(frozen=True)
class TransposedLists:
    """The edges of an index list, sorted by key. All tensors carry a leading heads dim when the pattern is per head.

    offsets: (M + 1,); the edges of key j are `edges[offsets[j] : offsets[j + 1]]`, in ascending order.
    edges:   (N * n,) edge ids; empty slots belong to no key and fill the tail from `offsets[M]` on.
    order:   (M,) keys by ascending degree, ties by position.
    """

    offsets: Tensor
    edges: Tensor
    order: Tensor

    @classmethod
    def build(cls, indices: Tensor, num_keys: int) -> TransposedLists:
        """Transpose an (N, n) or (H, N, n) table, without waiting for the device."""
        flat = indices.flatten(start_dim=-2)
        dtype = torch.int32 if flat.shape[-1] < 2**31 else torch.int64
        # Empty slots get a key of their own behind all others, so that the sort moves them to the tail.
        keys, edges = torch.where(flat >= 0, flat, num_keys).sort(dim=-1, stable=True)
        bounds = torch.arange(num_keys + 1, dtype=keys.dtype, device=keys.device).expand(*keys.shape[:-1], -1)
        offsets = torch.searchsorted(keys, bounds.contiguous(), out_int32=dtype == torch.int32)
        order = offsets.diff(dim=-1).argsort(dim=-1, stable=True)
        return cls(offsets, edges.to(dtype), order.to(torch.int32))

    @property
    def degrees(self) -> Tensor:
        """(M,) or (H, M): how many edges end in each key."""
        return self.offsets.diff(dim=-1)

    def to(self, device: torch.device | str) -> TransposedLists:
        return TransposedLists(self.offsets.to(device), self.edges.to(device), self.order.to(device))


class IndexList(Layout):
    """The keys of each query, listed: an (N, n) table of key positions, or (H, N, n) for a pattern of its own per head.

    A slot of -1 is empty; a key listed twice counts twice. Queries in `full_rows` see every key once instead, and
    their rows of the table must be empty. The table must not be changed afterwards.

    indices:   int32 or int64 tensor, kept as contiguous int32.
    num_keys:  M, the length of k; N where it is not given.
    full_rows: positions of queries that see all keys, such as global tokens; the same for all heads.
    validate:  False skips the checks of the table's values, which wait for the device. For patterns that are right by
               construction and change at each step; a position out of range is then undefined behaviour.

    Raises ValueError for a table of the wrong shape, dtype or range, naming the first bad entry.
    """

    kind = "index list"

    @in_normal_mode
    def __init__(
        self,
        indices: Tensor,
        num_keys: int | None = None,
        full_rows: Sequence[int] = (),
        *,
        validate: bool = True,
    ) -> None:
        _check_table(indices)
        self.num_keys = indices.shape[-2] if num_keys is None else num_keys
        if isinstance(self.num_keys, float) or not 1 <= self.num_keys < 2**31:
            raise ValueError(f"num_keys={num_keys}: expected 1 to {2**31 - 1}, a whole number")
        self.full_rows = whole_numbers("full_rows", full_rows)
        _check_full_rows(self.full_rows, indices.shape[-2])
        if validate:
            _check_range(indices, self.num_keys)
            _check_rows_are_empty(indices, self.full_rows)
        self.indices = as_normal(indices.to(torch.int32).contiguous())
        self._transposed: TransposedLists | None = None
        self._full_rows_index: Tensor | None = None
        self._full_rows_blocks: BlockSparse | None = None

    @property
    def num_tokens(self) -> int:
        return self.indices.shape[-2]

    @property
    def num_slots(self) -> int:
        """n, the most keys that a row of the table holds."""
        return self.indices.shape[-1]

    @property
    def num_heads(self) -> int | None:
        return self.indices.shape[0] if self.indices.dim() == 3 else None

    @property
    def device(self) -> torch.device:
        return self.indices.device

    @property
    @in_normal_mode
    def transposed(self) -> TransposedLists:
        """The table's edges sorted by key; built at first use and shared by everyone who holds this layout."""
        # No cached_property, whose lock of Python 3.11 torch.compile cannot trace.
        if self._transposed is None:
            self._transposed = TransposedLists.build(self.indices, self.num_keys)
        return self._transposed

    def build(self) -> None:
        _ = self.transposed, self.full_rows_index
        if self.full_rows:
            self.full_rows_blocks.build()

    @property
    @in_normal_mode
    def full_rows_index(self) -> Tensor:
        """`full_rows` as an int64 tensor on the layout's device."""
        if self._full_rows_index is None:
            self._full_rows_index = torch.tensor(self.full_rows, dtype=torch.int64, device=self.device)
        return self._full_rows_index

    @property
    @in_normal_mode
    def full_rows_blocks(self) -> BlockSparse:
        """All keys for each of `full_rows` and nothing else, R queries and M keys, for kernels that take blocks."""
        if self._full_rows_blocks is None:
            if torch.compiler.is_compiling():
                raise ValueError(NOT_BUILT)
            num_rows, num_columns = (-(-length // BLOCK_SIZE) for length in (len(self.full_rows), self.num_keys))
            every_block = torch.arange(num_columns, device=self.device).expand(num_rows, -1)
            self._full_rows_blocks = BlockSparse.from_table(
                every_block, block_size=BLOCK_SIZE, num_tokens=len(self.full_rows), num_keys=self.num_keys
            )
        return self._full_rows_blocks

    @property
    def degrees(self) -> Tensor:
        """(M,) or (H, M): how many queries see each key; duplicates count, full rows too."""
        return self.transposed.degrees + len(self.full_rows)

    @cached_property
    def num_edges(self) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        full = len(self.full_rows) * self.num_keys * (self.num_heads or 1)
        return int((self.indices >= 0).sum()) + full

    def dense_mask(self) -> Tensor:
        mask = torch.zeros(*self.indices.shape[:-1], self.num_keys + 1, dtype=torch.bool, device=self.device)
        mask.scatter_(-1, torch.where(self.indices >= 0, self.indices, self.num_keys).long(), True)
        mask[..., self.full_rows_index, :] = True
        return mask[..., : self.num_keys]

    @in_normal_mode
    def to(self, device: torch.device | str) -> IndexList:
        """The same layout on another device; transposed lists that exist already are moved, not built again."""
        indices = self.indices.to(device)
        if indices is self.indices:
            return self
        moved = IndexList(indices, self.num_keys, self.full_rows, validate=False)
        moved._rule = self._rule
        if self._transposed is not None:
            moved._transposed = self._transposed.to(device)
        if self._full_rows_blocks is not None:
            moved._full_rows_blocks = self._full_rows_blocks.to(device)
        if "num_edges" in vars(self):
            vars(moved)["num_edges"] = self.num_edges
        return moved

    def __repr__(self) -> str:
        heads = "" if self.num_heads is None else f"{self.num_heads} heads x "
        full = f", {len(self.full_rows)} full rows" if self.full_rows else ""
        table = f"{heads}{self.num_tokens} queries x {self.num_slots} slots"
        return f"IndexList({table}, {self.num_keys} keys{full}, {self.device})"


def _check_table(indices: Tensor) -> None:
    if not isinstance(indices, Tensor):
        raise ValueError(f"indices: expected an int32 or int64 tensor, got {type(indices).__name__}")
    if indices.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"indices: expected dtype int32 or int64, got {str(indices.dtype).removeprefix('torch.')}")
    if indices.dim() not in (2, 3) or indices.numel() == 0:
        raise ValueError(
            f"indices: expected shape (queries, slots) or (heads, queries, slots), none of them 0, "
            f"got {tuple(indices.shape)}"
        )


def _check_full_rows(full_rows: tuple[int, ...], num_tokens: int) -> None:
    seen = set()
    for row in full_rows:
        if not 0 <= row < num_tokens:
            raise ValueError(f"full_rows: query {row} does not exist; expected 0 to {num_tokens - 1}")
        if row in seen:
            raise ValueError(f"full_rows: query {row} is listed twice")
        seen.add(row)


def _check_range(indices: Tensor, num_keys: int) -> None:
    low, high = torch.stack(indices.aminmax()).tolist()
    if low >= EMPTY and high < num_keys:
        return
    bad = ((indices < EMPTY) | (indices >= num_keys)).nonzero()[0].tolist()
    names = ("head", "row", "slot")[-len(bad) :]
    place = ", ".join(f"{name} {position}" for name, position in zip(names, bad, strict=True))
    raise ValueError(
        f"indices: {place} holds {int(indices[tuple(bad)])}; expected a key position from 0 to {num_keys - 1}, "
        f"or -1 for an empty slot"
    )


def _check_rows_are_empty(indices: Tensor, full_rows: tuple[int, ...]) -> None:
    if not full_rows:
        return
    rows = torch.tensor(full_rows, device=indices.device)
    used = (indices.index_select(-2, rows) >= 0).any(dim=-1)
    if bool(used.any()):
        row = full_rows[int(used.nonzero()[0, -1])]
        raise ValueError(f"full_rows: query {row} sees every key, so its row of the table must be empty (-1)")
