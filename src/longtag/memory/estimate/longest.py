"""The longest sequence whose training step fits."""

from dataclasses import replace
from functools import partial

import torch

from longtag.memory.estimate.compose import count_composed
from longtag.memory.estimate.count import Standing
from longtag.memory.estimate.estimate import Estimate, summed
from longtag.memory.estimate.subject import Subject
from sparse_attention import BlockSparse, HubsApart, IndexList, InParts, Layout

CLOSE = 0.99
"""Share of the room that is filled at least, unless the search takes too long."""
MOST_COUNTS = 5


def longest(subject: Subject, standing: Standing, room: int, known: Estimate) -> int:
    """Tokens of a crop, a multiple of 1000 below which every length fits into `room` bytes; 0 where not even 1000 fit.

    known: the estimate for `subject.tokens`. Memory is nearly a straight line over the length, so that few lengths have
    to be counted: each next one lies where the line through the last two meets the room.
    """
    subject = replace(subject, pattern=_of_any_length(subject))
    fits, (tokens, peak) = 0, (subject.tokens, known.peak)
    before = (0, known.peak - known.activations - known.temporary + known.workspace)
    for _ in range(MOST_COUNTS):
        if peak <= room:
            fits = max(fits, tokens)
        if CLOSE * room <= peak <= room:
            break
        slope = (peak - before[1]) / (tokens - before[0])
        aim = int(before[0] + (room * (1 + CLOSE) / 2 - before[1]) / slope) // 1000 * 1000
        if aim < 1000 or aim in (tokens, before[0]):
            break
        before, tokens = (tokens, peak), aim
        longer = replace(subject, tokens=tokens)
        peak = summed(longer, count_composed(longer, costs=False), standing).peak
    else:
        fits = max(fits, tokens if peak <= room else 0)
    return fits


def _of_any_length(subject: Subject):
    """The pattern; of lists that grow with the length only the size, which is soon known."""
    layout = subject.pattern(subject.tokens)
    return partial(_of_length, layout) if type(layout) in (IndexList, InParts) else subject.pattern


def _of_length(layout: Layout, num_tokens: int) -> Layout:
    """One of the same kind and about the size that this one would have for so many tokens."""
    if isinstance(layout, InParts):
        return InParts([_of_length(part, num_tokens) for part in layout.parts])
    if isinstance(layout, HubsApart):
        columns, rows = (range(min(len(hubs), num_tokens)) for hubs in (layout.columns, layout.rows))
        rest = _of_length(layout.rest, num_tokens)
        return HubsApart(rest, columns=columns, rows=rows)  # pyright: ignore[reportArgumentType]
    if isinstance(layout, BlockSparse):
        size = layout.block_size
        blocks_of_a_row, num_rows = -(-layout.num_entries // layout.num_rows), -(-num_tokens // size)
        table = torch.arange(min(blocks_of_a_row, num_rows)).expand(num_rows, -1)
        return BlockSparse.from_table(table, block_size=size, num_tokens=num_tokens)
    assert isinstance(layout, IndexList)
    table = torch.empty((*layout.indices.shape[:-2], num_tokens, layout.num_slots), dtype=torch.int32)
    return IndexList(table, validate=False)
