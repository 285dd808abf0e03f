"""Layouts of groups of heads, which go through attention one after the other.

Legend: h heads, g heads of a group.
"""

from weakref import WeakKeyDictionary

from longtag.errors import UsageError
from sparse_attention import BlockSparse, IndexList, Layout, PerHead

_GROUPS: WeakKeyDictionary[Layout, dict[tuple[int, int], list[Layout]]] = WeakKeyDictionary()
"""What was cut already: all layers and steps share the lists that backward builds for a group."""


def layouts_of_groups(layout: Layout, num_heads: int, group: int) -> list[Layout]:
    """The layout of heads 0 .. g - 1, that of heads g .. 2 g - 1, and so on; the last group may be smaller.

    A layout that all heads share is that of each group. Raises UsageError for a layout that cannot be cut.
    """
    cut = _GROUPS.setdefault(layout, {})
    if (num_heads, group) not in cut:
        starts = range(0, num_heads, group)
        cut[num_heads, group] = [_of_heads(layout, start, min(start + group, num_heads)) for start in starts]
    return cut[num_heads, group]


def _of_heads(layout: Layout, start: int, stop: int) -> Layout:
    if layout.num_heads is None:
        return layout
    if isinstance(layout, IndexList):
        return IndexList(layout.indices[start:stop], layout.num_keys, layout.full_rows, validate=False)
    if isinstance(layout, BlockSparse):
        return _blocks_of_heads(layout, start, stop)
    if isinstance(layout, PerHead):
        return _layouts_of_heads(layout, start, stop)
    raise UsageError(
        f"memory.tile_heads: heads {start} to {stop - 1} cannot be cut out of a {type(layout).__name__}; "
        f"give memory.tile_heads=null"
    )


def _blocks_of_heads(layout: BlockSparse, start: int, stop: int) -> BlockSparse:
    rows = layout.lists.row_of_entry
    ours = (rows >= start * layout.num_rows) & (rows < stop * layout.num_rows)
    return BlockSparse(
        rows[ours] - start * layout.num_rows,
        layout.lists.blocks[ours],
        layout.lists.masks[ours],
        layout.mask_words,
        block_size=layout.block_size,
        num_tokens=layout.num_tokens,
        num_keys=layout.num_keys,
        num_heads=stop - start,
        validate=False,
    )


def _layouts_of_heads(layout: PerHead, start: int, stop: int) -> Layout:
    layouts, heads = [], []
    for theirs, part in layout.groups():
        first, last = max(start, theirs.start), min(stop, theirs.stop)
        if first < last:
            layouts.append(_of_heads(part, first - theirs.start, last - theirs.start))
            heads.append(last - first)
    return layouts[0] if len(layouts) == 1 else PerHead(layouts, heads)
