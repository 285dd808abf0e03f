"""A pattern of its own for each group of heads."""

from collections.abc import Mapping, Sequence

import torch

from ..layouts import BlockSparse, IndexList, Layout, PerHead
from ..layouts.per_head import first_heads
from ..rules.to_index_list import same_width
from .options import check_at_least, check_list
from .pattern import Pattern, layouts_of

MOST_PADDING = 1.5
"""How much larger one table for all heads may be than a table for each."""


def per_head(num_tokens: int, *, patterns: Mapping[str, Pattern] | Sequence[Pattern], heads: Sequence[int]) -> Layout:
    """The first heads[0] heads see what the first pattern allows, the next heads[1] heads what the second does, and so
    on.

    As Longformer (Beltagy, Peters and Cohan 2020, arXiv:2004.05150, section 3.1) gives dilations to some of its heads,
    and the Sparse Transformer's (Child et al. 2019, arXiv:1904.10509) heads may take either of its parts.

    The sum of heads[g] times the edges of pattern g, counted over all heads.

    patterns: functions from num_tokens to a layout, such as `partial(patterns.window, window=4)`; a list, or by name.
    heads:    how many heads each of them takes, in their order; together the model's number of heads.

    Returns one index list or block sparse layout of all heads where the patterns are stored alike, and otherwise a
    PerHead layout, whose groups are computed one after the other.

    Raises ValueError for no pattern at all, for one that refuses its options or has another number of heads, and for
    a list of heads of another length or with a number below 1.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_list(1, "[2, 2]", heads=heads)
    if len(patterns) != len(heads):
        raise ValueError(f"heads={list(heads)}: expected {len(patterns)} numbers, one for each pattern")
    layouts = layouts_of(num_tokens, patterns)
    together = PerHead(layouts, heads)
    stacked = _stack_index_lists(layouts, heads) or _stack_block_sparse(layouts, heads)
    if stacked is None:
        return together
    stacked.rule = together.rule
    return stacked


def _stack_index_lists(layouts: Sequence[Layout], heads: Sequence[int]) -> IndexList | None:
    lists = [layout for layout in layouts if isinstance(layout, IndexList)]
    if len(lists) < len(layouts) or any(set(part.full_rows) != set(lists[0].full_rows) for part in lists):
        return None
    slots = [part.num_slots for part in lists]
    if max(slots) * sum(heads) > MOST_PADDING * sum(map(int.__mul__, slots, heads)):
        return None
    tables = []
    for part, count in zip(lists, heads, strict=True):
        tables += list(part.indices) if part.num_heads else [part.indices] * count
    return IndexList(torch.stack(same_width(tables)), full_rows=lists[0].full_rows, validate=False)


def _stack_block_sparse(layouts: Sequence[Layout], heads: Sequence[int]) -> BlockSparse | None:
    parts = [layout for layout in layouts if isinstance(layout, BlockSparse)]
    if len(parts) < len(layouts) or len({part.block_size for part in parts}) > 1:
        return None
    rows, columns, masks, words = [], [], [], []
    for part, first, count in zip(parts, first_heads(heads), heads, strict=True):
        mask = part.lists.masks.long()
        mask = mask.where(mask < 0, mask + sum(map(len, words)))
        words.append(part.mask_words)
        for head in [first] if part.num_heads else range(first, first + count):
            rows.append(part.lists.row_of_entry + head * part.num_rows)
            columns.append(part.lists.blocks.long())
            masks.append(mask)
    return BlockSparse(
        torch.cat(rows), torch.cat(columns), torch.cat(masks), torch.cat(words),
        block_size=parts[0].block_size, num_tokens=parts[0].num_tokens, num_heads=sum(heads), validate=False,
    )  # fmt: skip
