"""What a pattern costs beside dense attention: edges, degrees, memory of the layout, FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import singledispatch

import torch
from torch import Tensor

from ..layouts import BlockSparse, Dense, HubsApart, IndexList, InParts, Layout, PerHead
from .cells import pairs_by_cell
from .heads import HeadGroup

FORWARD_FLOPS, BACKWARD_FLOPS = 4, 8
"""A unit of head_dim and edge: two products forward, four backward, two operations each; nothing is computed twice."""


@dataclass(frozen=True)
class Spread:
    """How evenly edges are spread, over all heads of a per-head pattern one after another.

    degrees: (heads x M,) int64; how many queries see each key.
    keys:    (heads x N,) int64; how many keys each query sees.
    """

    degrees: Tensor
    keys: Tensor

    @classmethod
    def of(cls, groups: Sequence[HeadGroup]) -> Spread:
        degrees, keys = [], []
        for group in groups:
            layout, repeats = group.layout, max(1, len(group.heads))
            degrees += [pairs_by_cell(layout, layout.num_tokens, 1)[0]] * repeats
            keys += [pairs_by_cell(layout, 1, layout.num_keys)[:, 0]] * repeats
        return cls(torch.cat(degrees), torch.cat(keys))

    @property
    def num_edges(self) -> int:
        return int(self.keys.sum())


@dataclass(frozen=True)
class Storage:
    """Bytes that a layout keeps, bytes more once backward asked for transposed lists, and pairs it has room for."""

    forward: int
    backward: int
    pairs: int


@singledispatch
def storage(layout: Layout) -> Storage:
    """For all heads together; raises ValueError for a kind of layout that is not known here."""
    raise ValueError(f"pattern: a layout of the kind {type(layout).__name__} cannot be drawn")


@storage.register
def _(layout: IndexList) -> Storage:
    slots, heads = layout.indices.numel(), layout.num_heads or 1
    size = 4 if slots // heads < 2**31 else 8
    transposed = heads * ((layout.num_keys + 1) * size + layout.num_keys * 4) + slots * size
    return Storage(layout.indices.nbytes, transposed, slots + heads * len(layout.full_rows) * layout.num_keys)


@storage.register
def _(layout: BlockSparse) -> Storage:
    lists = layout.lists
    of_entries = lists.blocks.nbytes + lists.masks.nbytes
    forward = of_entries + lists.offsets.nbytes + lists.partial.nbytes + layout.mask_words.nbytes
    transposed = of_entries + (2 * layout.num_columns * (layout.num_heads or 1) + 1) * 4
    return Storage(forward, transposed, layout.num_entries * layout.block_size**2)


@storage.register
def _(layout: HubsApart) -> Storage:
    return storage(layout.blocks)


@storage.register
def _(layout: InParts) -> Storage:
    parts = [storage(part) for part in layout.parts]
    return Storage(*(sum(figures) for figures in zip(*map(astuple, parts), strict=True)))


@storage.register
def _(layout: PerHead) -> Storage:
    forward = backward = pairs = 0
    for part, count in zip(layout.layouts, layout.heads, strict=True):
        stored = storage(part)
        forward, backward = forward + stored.forward, backward + stored.backward
        pairs += stored.pairs * (1 if part.num_heads else count)
    return Storage(forward, backward, pairs)


@storage.register
def _(layout: Dense) -> Storage:
    return Storage(0, 0, layout.num_edges)


def cost_table(layout: Layout, spread: Spread) -> list[tuple[str, str, str, str]]:
    """Rows of a name, the pattern's figure, that of dense attention, and how many times as much the latter is."""
    num_queries, num_keys, num_heads = layout.num_tokens, layout.num_keys, layout.num_heads or 1
    edges, dense = spread.num_edges, num_heads * num_queries * num_keys
    stored = storage(layout)
    unseen, most = int((spread.degrees == 0).sum()), int(spread.degrees.max())
    low, high = int(spread.keys.min()), int(spread.keys.max())
    in_all = f", {num_heads} head{'s' if num_heads > 1 else ''}" if layout.num_heads else ""
    return [
        ("", "pattern", "dense", "dense / pattern"),
        (f"edges{in_all}", f"{edges:,}", f"{dense:,}", times(dense, edges)),
        ("density", percent(edges / dense), "100 %", ""),
        ("keys a query, mean", mean_of(edges, spread.keys.numel()), f"{num_keys:,}", times(dense, edges)),
        ("keys a query, range", f"{low:,} to {high:,}" if low < high else f"{low:,}", f"{num_keys:,}", ""),
        ("greatest degree of a key", f"{most:,}", f"{num_queries:,}", times(num_queries, most)),
        ("keys that no query sees", f"{unseen:,}", "0", ""),
        ("layout", layout.kind, "dense", ""),
        ("  memory", in_bytes(stored.forward), "0 B", ""),
        ("  more for backward", in_bytes(stored.backward), "0 B", ""),
        ("  share of it in use", percent(edges / stored.pairs) if stored.pairs else "-", "100 %", ""),
        *(
            (f"FLOPs {name} / head_dim", flops(each * edges), flops(each * dense), times(dense, edges))
            for name, each in (("forward", FORWARD_FLOPS), ("backward", BACKWARD_FLOPS))
        ),
    ]


def mean_of(total: int, count: int) -> str:
    mean = total / count
    return f"{mean:,.0f}" if mean >= 1000 else f"{mean:.4g}"


def times(larger: float, smaller: float) -> str:
    if not smaller:
        return "-"
    ratio = larger / smaller
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share < 1 or share > 1.0005 else "100 %"


def in_bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count} B"


def flops(count: int) -> str:
    for unit, size in (("P", 10**15), ("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
