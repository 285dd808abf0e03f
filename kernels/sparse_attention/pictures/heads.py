"""Heads that share a pattern, found and taken out of a layout of a pattern per head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from itertools import pairwise

import torch
from torch import Tensor

from ..layouts import BlockSparse, IndexList, Layout, PerHead


@dataclass(frozen=True)
class HeadGroup:
    """heads:  the heads that share a pattern; none where the layout has one pattern for all heads.
    layout: that pattern alone, without a heads dim.
    """

    heads: Sequence[int]
    layout: Layout


@singledispatch
def head_groups(layout: Layout) -> list[HeadGroup]:
    """Each different pattern of a layout once, in the order of the first head that has it."""
    return [HeadGroup((), layout)]


@head_groups.register
def _(layout: IndexList) -> list[HeadGroup]:
    if layout.num_heads is None:
        return [HeadGroup((), layout)]
    return [
        HeadGroup(heads, IndexList(layout.indices[heads[0]], layout.num_keys, layout.full_rows, validate=False))
        for heads in _equal([(table,) for table in layout.indices])
    ]


@head_groups.register
def _(layout: BlockSparse) -> list[HeadGroup]:
    if layout.num_heads is None:
        return [HeadGroup((), layout)]
    ends = layout.lists.offsets[:: layout.num_rows].tolist()
    rows = layout.lists.row_of_entry % layout.num_rows
    entries = [
        (rows[start:end], layout.lists.blocks[start:end], layout.lists.masks[start:end])
        for start, end in pairwise(ends)
    ]
    return [
        HeadGroup(
            heads,
            BlockSparse(
                *entries[heads[0]], layout.mask_words, block_size=layout.block_size, num_tokens=layout.num_tokens,
                num_keys=layout.num_keys, validate=False,
            ),
        )
        for heads in _equal(entries)
    ]  # fmt: skip


@head_groups.register
def _(layout: PerHead) -> list[HeadGroup]:
    groups = []
    for heads, part in layout.groups():
        numbers = range(heads.start, heads.stop)
        for group in head_groups(part):
            groups.append(HeadGroup([numbers[head] for head in group.heads] or numbers, group.layout))
    return groups


def _equal(patterns: Sequence[tuple[Tensor, ...]]) -> list[list[int]]:
    """Positions of equal patterns, together."""
    groups: list[list[int]] = []
    for head, pattern in enumerate(patterns):
        for group in groups:
            if all(torch.equal(ours, theirs) for ours, theirs in zip(pattern, patterns[group[0]], strict=True)):
                group.append(head)
                break
        else:
            groups.append([head])
    return groups


def heads_in_words(heads: Sequence[int]) -> str:
    """Such as `head 3` or `heads 0 to 3, 6, 8`, with what follows counted where it grows long."""
    if len(heads) == 1:
        return f"head {heads[0]}"
    runs: list[list[int]] = []
    for head in heads:
        if runs and runs[-1][-1] == head - 1:
            runs[-1].append(head)
        else:
            runs.append([head])
    words = [", ".join(map(str, run)) if len(run) < 3 else f"{run[0]} to {run[-1]}" for run in runs]
    more = sum(len(run) for run in runs[4:])
    return f"heads {', '.join(words[:4])}{f' and {more} more' if more else ''}"
