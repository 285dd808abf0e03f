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
TIMES_THE_MEAN = 4
"""Rows of more entries than this many times the mean are cut."""
FEWEST_PIECES = 32
"""Programs a head. Where a few rows hold all entries, such as those of queries that see every key, no piece is longer
than it takes to have so many."""


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
        most = longest_segment(lists.blocks.numel(), num_rows, block_size)
        segments = ((counts + most - 1) // most).clamp(min=1)
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


def longest_segment(num_entries: int, num_rows: int, block_size: int) -> int:
    """Entries from which on a row is cut."""
    mean = -(-num_entries // num_rows)
    longest = min(TIMES_THE_MEAN * mean, -(-num_entries // FEWEST_PIECES))
    return max(SHORTEST_SEGMENT // block_size, longest)
