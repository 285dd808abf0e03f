"""The longest sequence whose training step fits."""

from dataclasses import replace

import torch

from longtag.memory.estimate.compose import count_composed
from longtag.memory.estimate.count import Standing
from longtag.memory.estimate.estimate import Estimate, summed
from longtag.memory.estimate.subject import Subject
from sparse_attention import IndexList, Layout

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
    if type(layout) is not IndexList:
        return subject.pattern
    heads, slots = layout.indices.shape[:-2], layout.num_slots

    def of_length(num_tokens: int) -> Layout:
        table = torch.empty((*heads, num_tokens, slots), dtype=torch.int32)
        return IndexList(table, validate=False)

    return of_length
