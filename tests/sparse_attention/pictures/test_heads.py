"""Heads that share a pattern are shown once."""

import pytest
import torch

from sparse_attention import BlockSparse, Dense, IndexList
from sparse_attention.layouts import PerHead
from sparse_attention.pictures.heads import head_groups, heads_in_words
from tests.sparse_attention.block_layouts import block_layout


def test_a_pattern_that_all_heads_share_is_one_group_without_heads() -> None:
    for layout in (Dense(7), IndexList(torch.zeros(7, 2, dtype=torch.int32)), block_layout(num_tokens=40)):
        (group,) = head_groups(layout)
        assert group.layout is layout
        assert group.heads == ()


def test_equal_tables_of_an_index_list_are_found_wherever_they_stand() -> None:
    table = torch.randint(9, (3, 9, 2))
    table[0, 0, 0], table[1, 0, 0], table[2, 0, 0] = 0, 1, 2
    layout = IndexList(table[[0, 1, 0, 2, 1]], full_rows=())
    groups = head_groups(layout)
    assert [group.heads for group in groups] == [[0, 2], [1, 4], [3]]
    for group in groups:
        for head in group.heads:
            assert torch.equal(group.layout.dense_mask(), layout.dense_mask()[head])


def test_equal_lists_of_blocks_are_found_and_taken_out_with_their_masks() -> None:
    one = block_layout(num_tokens=75, heads=2, seed=5)
    first, lists = (one.lists.row_of_entry < one.num_rows), one.lists
    rows, blocks, masks = lists.row_of_entry[first], lists.blocks[first], lists.masks[first]
    second = ~first
    three = BlockSparse(
        torch.cat((rows, rows + one.num_rows, lists.row_of_entry[second] + one.num_rows)),
        torch.cat((blocks, blocks, lists.blocks[second])), torch.cat((masks, masks, lists.masks[second])),
        one.mask_words, block_size=16, num_tokens=75, num_heads=3,
    )  # fmt: skip
    groups = head_groups(three)
    assert [group.heads for group in groups] == [[0, 1], [2]]
    assert torch.equal(groups[0].layout.dense_mask(), one.dense_mask()[0])
    assert torch.equal(groups[1].layout.dense_mask(), one.dense_mask()[1])


def test_groups_of_heads_with_layouts_of_different_kinds_keep_their_numbers() -> None:
    blocks = block_layout(num_tokens=40, heads=2, seed=5)
    layout = PerHead([Dense(40), blocks, IndexList(torch.zeros(40, 1, dtype=torch.int32))], heads=[3, 2, 1])
    groups = head_groups(layout)
    assert [list(group.heads) for group in groups] == [[0, 1, 2], [3], [4], [5]]
    for group in groups:
        for head in group.heads:
            assert torch.equal(group.layout.dense_mask(), layout.dense_mask()[head])


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ([3], "head 3"),
        ([0, 1], "heads 0, 1"),
        ([0, 1, 2, 5], "heads 0 to 2, 5"),
        (range(0, 20, 2), "heads 0, 2, 4, 6 and 6 more"),
    ],
)
def test_heads_are_named_in_few_words(heads: list[int], words: str) -> None:
    assert heads_in_words(heads) == words
