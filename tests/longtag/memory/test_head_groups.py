import gc
import weakref

import pytest
import torch

from longtag.errors import UsageError
from longtag.memory.head_groups import layouts_of_groups
from sparse_attention import Dense, IndexList, Layout, PerHead, patterns

from .conftest import per_head_layouts


@pytest.mark.parametrize("group", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("kind", ["index list", "block sparse", "per head"])
@pytest.mark.parametrize("num_tokens", [16, 37])
def test_each_group_sees_what_its_heads_saw(kind, num_tokens, group):
    layout = per_head_layouts(num_tokens)[kind]
    masks = []
    for number, part in enumerate(layouts_of_groups(layout, 4, group)):
        size = min(group, 4 - number * group)
        assert part.num_heads in (None, size)
        masks.append(part.dense_mask().expand(size, -1, -1))
    assert torch.equal(torch.cat(masks), layout.dense_mask())


def test_queries_that_see_everything_still_do():
    table = torch.randint(9, (2, 9, 3))
    table[:, 4] = -1
    layout = IndexList(table, full_rows=[4])
    for part, mask in zip(layouts_of_groups(layout, 2, 1), layout.dense_mask(), strict=True):
        assert torch.equal(part.dense_mask()[0], mask)


@pytest.mark.parametrize("layout", [Dense(9), patterns.window(9, window=2), patterns.knn(9, num_nearest=2)])
def test_a_pattern_that_all_heads_share_is_not_copied(layout):
    assert all(part is layout for part in layouts_of_groups(layout, 4, 3))


def test_groups_of_one_kind_need_no_layout_of_several():
    first, second = layouts_of_groups(PerHead([Dense(9), patterns.window(9, window=1)], [2, 2]), 4, 2)
    assert isinstance(first, Dense)
    assert isinstance(second, IndexList)


def test_a_layout_is_cut_once_and_forgotten_with_it():
    layout = IndexList(torch.randint(9, (4, 9, 3)))
    assert layouts_of_groups(layout, 4, 2)[1] is layouts_of_groups(layout, 4, 2)[1]
    assert len(layouts_of_groups(layout, 4, 3)) == 2
    alive = weakref.ref(layouts_of_groups(layout, 4, 2)[1])
    del layout
    gc.collect()
    assert alive() is None


def test_a_layout_of_an_unknown_kind_is_refused():
    class Own(Dense):
        num_heads = 4  # pyright: ignore[reportAssignmentType]

    layout: Layout = Own(9)
    with pytest.raises(UsageError, match=r"memory.tile_heads: heads 0 to 1 .* Own; give memory.tile_heads=null"):
        layouts_of_groups(layout, 4, 2)
