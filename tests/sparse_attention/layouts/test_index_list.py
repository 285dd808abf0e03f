"""IndexList: what it accepts, what it says of what it does not, and its transposed lists."""

import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_attention import IndexList
from sparse_attention.layouts import TransposedLists
from sparse_attention.testing import AWKWARD_TABLES, awkward_layout


def edges_by_key(indices: Tensor, num_keys: int) -> list[list[int]]:
    flat = indices.flatten().tolist()
    return [[edge for edge, listed in enumerate(flat) if listed == key] for key in range(num_keys)]


def listed_by_key(lists: TransposedLists) -> list[list[int]]:
    bounds = lists.offsets.tolist()
    return [lists.edges[start:stop].tolist() for start, stop in pairwise(bounds)]


@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_transposed_lists_hold_the_edges_of_each_key_in_order(name: str) -> None:
    layout = awkward_layout(name, num_tokens=19, num_slots=4, num_keys=23)
    assert listed_by_key(layout.transposed) == edges_by_key(layout.indices, 23)


def test_transposed_lists_of_a_per_head_pattern_have_a_heads_dim() -> None:
    layout = awkward_layout("scattered empty slots", num_tokens=19, num_slots=4, heads=3)
    lists = layout.transposed
    assert lists.offsets.shape == (3, 20)
    for head in range(3):
        of_head = TransposedLists(lists.offsets[head], lists.edges[head], lists.order[head])
        assert listed_by_key(of_head) == edges_by_key(layout.indices[head], 19)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), num_tokens=st.integers(1, 12), num_slots=st.integers(1, 5), num_keys=st.integers(1, 12))
def test_transposed_lists_of_any_table(data: st.DataObject, num_tokens: int, num_slots: int, num_keys: int) -> None:
    row = st.lists(st.integers(-1, num_keys - 1), min_size=num_slots, max_size=num_slots)
    table = torch.tensor(data.draw(st.lists(row, min_size=num_tokens, max_size=num_tokens)))
    layout = IndexList(table, num_keys)
    assert listed_by_key(layout.transposed) == edges_by_key(table, num_keys)
    assert sorted(layout.transposed.edges.tolist()) == list(range(table.numel()))
    assert layout.degrees.tolist() == [len(edges) for edges in edges_by_key(table, num_keys)]


def test_keys_are_ordered_by_degree_and_ties_by_position() -> None:
    lists = IndexList(torch.tensor([[3, 0], [3, 0], [3, 1]]), num_keys=5).transposed
    assert lists.order.tolist() == [2, 4, 1, 0, 3]


def test_positions_are_stored_in_32_bits() -> None:
    layout = IndexList(torch.zeros(4, 2, dtype=torch.int64))
    lists = layout.transposed
    assert {layout.indices.dtype, lists.offsets.dtype, lists.edges.dtype, lists.order.dtype} == {torch.int32}


def test_edges_beyond_2_to_the_31_are_numbered_in_64_bits() -> None:
    layout = IndexList(torch.empty(2**29, 4, dtype=torch.int32, device="meta"), num_keys=7, validate=False)
    lists = layout.transposed
    assert (lists.edges.dtype, lists.offsets.dtype) == (torch.int64, torch.int64)
    assert (lists.edges.shape, lists.offsets.shape, lists.order.shape) == ((2**31,), (8,), (7,))


def test_strided_tables_are_stored_contiguous() -> None:
    table = torch.arange(12, dtype=torch.int32).view(3, 4).T
    layout = IndexList(table, num_keys=12)
    assert layout.indices.is_contiguous()
    assert torch.equal(layout.indices, table)


def test_transposed_lists_are_built_once() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2)
    assert layout.transposed is layout.transposed


def test_moving_a_layout_moves_what_it_has_built() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2, full_rows=(4,))
    edges = layout.num_edges
    assert layout.to("meta")._transposed is None
    assert layout.transposed.edges.device.type == "cpu"
    moved = layout.to("meta")
    assert moved._transposed is not None
    assert moved.transposed.edges.device.type == "meta"
    assert (moved.num_edges, moved.full_rows, moved.num_keys) == (edges, (4,), 9)


def test_a_layout_that_is_there_already_is_not_copied() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2)
    assert layout.to("cpu") is layout


@pytest.mark.gpu
def test_a_layout_on_its_gpu_is_not_copied_when_the_device_has_no_number() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2, device="cuda")
    assert layout.to("cuda") is layout


def test_statistics_count_edges_and_not_empty_slots() -> None:
    layout = IndexList(torch.tensor([[0, 1], [1, -1], [-1, -1], [1, 1]]), num_keys=5)
    assert layout.num_edges == 5
    assert layout.degrees.tolist() == [1, 4, 0, 0, 0]
    assert layout.max_degree == 4
    assert layout.keys_per_query == 5 / 4
    assert layout.density == 5 / 20


def test_statistics_count_full_rows_as_seeing_every_key() -> None:
    layout = IndexList(torch.tensor([[-1], [0], [0]]), full_rows=(0,))
    assert layout.num_edges == 3 + 2
    assert layout.degrees.tolist() == [3, 1, 1]


def test_statistics_of_a_per_head_pattern_are_sums_and_means_over_heads() -> None:
    layout = IndexList(torch.tensor([[[0, 1], [0, 1]], [[0, -1], [-1, -1]]]))
    assert (layout.num_tokens, layout.num_slots, layout.num_heads) == (2, 2, 2)
    assert layout.num_edges == 5
    assert layout.keys_per_query == 5 / 4
    assert layout.density == 5 / 8
    assert layout.degrees.tolist() == [[2, 2], [1, 0]]


def test_repr_is_short_and_tells_the_sizes() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2, heads=3, full_rows=(1,))
    assert repr(layout) == "IndexList(3 heads x 9 queries x 2 slots, 9 keys, 1 full rows, cpu)"


def test_a_layout_can_be_pickled_for_worker_processes() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2, full_rows=(1,))
    copy = pickle.loads(pickle.dumps(layout))
    assert torch.equal(copy.indices, layout.indices)
    assert copy.full_rows == (1,)


def test_validation_can_be_left_out_for_tables_that_are_right_by_construction() -> None:
    bad = torch.tensor([[0, 7]])
    assert torch.equal(IndexList(bad, validate=False).indices, bad.int())
    with pytest.raises(ValueError, match="slot 1"):
        IndexList(bad)


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ([[0, 1], [3, 1], [9, 9]], "row 1, slot 0 holds 3; expected a key position from 0 to 2, or -1"),
        ([[0, 1], [2, -2], [0, 0]], "row 1, slot 1 holds -2; expected a key position from 0 to 2, or -1"),
        ([[[0], [1], [2]], [[0], [1], [3]]], "head 1, row 2, slot 0 holds 3"),
        ([[0], [0], [2**32]], "row 2, slot 0 holds 4294967296"),
    ],
)
def test_the_first_entry_out_of_range_is_named(table: list, place: str) -> None:
    with pytest.raises(ValueError, match=place):
        IndexList(torch.tensor(table))


def test_positions_are_checked_against_the_keys_and_not_the_queries() -> None:
    assert IndexList(torch.tensor([[4]]), num_keys=5).num_keys == 5
    with pytest.raises(ValueError, match="row 2, slot 0 holds 2; expected a key position from 0 to 1"):
        IndexList(torch.tensor([[0], [1], [2]]), num_keys=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0]],), "expected an int32 or int64 tensor, got list"),
        ((torch.zeros(2, 2),), "expected dtype int32 or int64, got float32"),
        ((torch.zeros(2, 2, dtype=torch.bool),), "got bool"),
        ((torch.zeros(2, dtype=torch.int32),), r"expected shape .* got \(2,\)"),
        ((torch.zeros(1, 1, 2, 2, dtype=torch.int32),), r"got \(1, 1, 2, 2\)"),
        ((torch.zeros(0, 2, dtype=torch.int32),), r"none of them 0, got \(0, 2\)"),
        ((torch.zeros(2, 0, dtype=torch.int32),), r"none of them 0, got \(2, 0\)"),
        ((torch.zeros(2, 2, dtype=torch.int32), 0), "num_keys=0: expected 1 to"),
        ((torch.full((2, 2), -1), None, (2,)), "full_rows: query 2 does not exist; expected 0 to 1"),
        ((torch.full((2, 2), -1), None, (-1,)), "full_rows: query -1 does not exist"),
        ((torch.full((2, 2), -1), None, (1, 1)), "full_rows: query 1 is listed twice"),
        ((torch.tensor([[-1], [0]]), None, (0, 1)), "query 1 sees every key, so its row of the table must be empty"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IndexList(*arguments)


def test_a_full_row_must_be_empty_in_every_head() -> None:
    table = torch.full((2, 3, 1), -1)
    table[1, 2] = 0
    with pytest.raises(ValueError, match="query 2 sees every key"):
        IndexList(table, full_rows=(2, 0))
