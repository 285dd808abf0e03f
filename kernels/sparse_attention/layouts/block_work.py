"""How the rows of a block sparse layout are dealt out to programs: long rows in segments, the longest pieces first.

The two global rows of BigBird list every block where others list eight. One program each would set the time of all, so
rows much longer than the mean, or one of a few that hold everything, are cut into equal segments, at places that depend
on the lists alone. Results of segments go to scratch memory and are merged in the order of the segments: the same sums
in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .block_lists import BlockLists

SHORTEST_SEGMENT = 512
"""Tokens. Shorter segments would spend more on their partial results than on attention."""
FEWEST_SEGMENTS = 3
"""Of so short ones: to cut a row in two gains less than the merge costs."""
TIMES_THE_MEAN = 4
"""Segments of more entries than this many times the mean could be the last ones to end, however long the sequence."""
FEWEST_PIECES = 64
"""Segments that all entries together would make: in a short sequence there is less other work beside one of them."""
ENOUGH_ROWS = 32
"""Rows of a head that keep a GPU busy by themselves; those near the mean are then left whole."""


@dataclass(frozen=True)
class BlockWork:
    """I items, of which the first S are the segments of the rows that were cut; then come all other rows.

    items:  (I, 4) int32: row, first entry, end of its entries, block of the first one; the longest first.
    splits: (S, 3) int32: row of each segment, the first segment of that row, and how many it has.
    """

    items: Tensor
    splits: Tensor

    @classmethod
    def build(cls, lists: BlockLists, block_size: int) -> BlockWork:
        counts, num_rows = lists.offsets.diff().long(), lists.partial.numel()
        beyond, most = where_to_cut(lists.blocks.numel(), num_rows, block_size)
        segments = torch.where(counts > beyond, (counts + most - 1) // most, 1)
        row = torch.arange(num_rows, device=counts.device).repeat_interleave(segments)
        first = segments.cumsum(0) - segments
        which = torch.arange(row.numel(), device=counts.device) - first[row]
        size = ((counts + segments - 1) // segments)[row]
        row_end = lists.offsets[1:][row]
        start = torch.minimum(lists.offsets[:-1][row] + which * size, row_end)
        end = torch.minimum(start + size, row_end)
        # One more in case there is no entry at all; what it holds is not used.
        first_block = torch.cat((lists.blocks, lists.blocks.new_zeros(1)))[start]
        items = torch.stack((row, start, end, first_block), dim=1).int()

        cut = segments[row] > 1
        # Segments keep their order and come first: none of the other rows is much longer than a segment.
        order = torch.where(cut, torch.iinfo(torch.int64).min, start - end).argsort(stable=True)
        num_segments = int(cut.sum())
        segment = order[:num_segments]
        place = torch.arange(num_segments, device=counts.device)
        splits = torch.stack((row[segment], place - which[segment], segments[row[segment]]), dim=1)
        return cls(items[order].contiguous(), splits.int())

    @property
    def num_segments(self) -> int:
        return self.splits.shape[0]

    def to(self, device: torch.device | str) -> BlockWork:
        return BlockWork(self.items.to(device), self.splits.to(device))


def where_to_cut(num_entries: int, num_rows: int, block_size: int) -> tuple[int, int]:
    """Entries beyond which a row is cut, and the most that a segment of it has."""
    mean, shortest = -(-num_entries // num_rows), SHORTEST_SEGMENT // block_size
    near_the_mean = mean if num_rows >= ENOUGH_ROWS else 1
    longest = min(TIMES_THE_MEAN * mean, max(num_entries // FEWEST_PIECES, near_the_mean))
    longest = max(longest, shortest)
    return max(longest, FEWEST_SEGMENTS * shortest, 2 * near_the_mean), longest
