"""Counting pairs in cells agrees with the dense mask, for every layout and for cells that fit nothing."""

import time

import pytest
import torch
from torch import Tensor

from sparse_attention import Dense, IndexList, Layout, patterns
from sparse_attention.pictures.cells import pairs_by_cell, share_by_cell
from tests.sparse_attention.block_layouts import (
    AWKWARD_BLOCKS,
    AWKWARD_HUBS,
    block_layout,
    hubs_layout,
    in_parts_layout,
)

CELLS = [(1, 1), (3, 5), (16, 16), (20, 7), (64, 64), (1, 1000), (1000, 1), (1000, 1000)]


def expected(mask: Tensor, query_cell: int, key_cell: int) -> Tensor:
    rows, columns = -(-mask.shape[0] // query_cell), -(-mask.shape[1] // key_cell)
    padded = torch.zeros(rows * query_cell, columns * key_cell, dtype=torch.int64)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.view(rows, query_cell, columns, key_cell).sum(dim=(1, 3))


def check(layout: Layout) -> None:
    mask = layout.dense_mask()
    for query_cell, key_cell in CELLS:
        assert torch.equal(pairs_by_cell(layout, query_cell, key_cell), expected(mask, query_cell, key_cell))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("name", AWKWARD_BLOCKS)
def test_blocks_are_counted_as_their_masks_say_wherever_cells_cut_them(name: str, size: int) -> None:
    check(block_layout(name, num_tokens=131, num_keys=77, block_size=size, seed=size))


def test_more_blocks_than_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_attention.pictures.cells.ENTRIES_AT_ONCE", 3)
    check(block_layout(num_tokens=200, block_size=16, seed=3))


def test_an_index_list_with_empty_slots_and_full_rows() -> None:
    check(patterns.longformer(83, window=3, num_global=2, layout="index_list"))
    check(IndexList(torch.tensor([[0, -1], [-1, -1], [2, 4]]), num_keys=5, full_rows=[1]))


@pytest.mark.parametrize("name", AWKWARD_HUBS)
def test_hubs_apart_are_counted_at_their_own_places(name: str) -> None:
    check(hubs_layout(name, num_tokens=83, seed=2))


def test_parts_are_counted_together() -> None:
    check(in_parts_layout(num_tokens=83, seed=2))


def test_more_slots_than_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_attention.pictures.cells.SLOTS_AT_ONCE", 20)
    check(patterns.dilated(70, window=2, dilations=[1, 9], layout="index_list"))


def test_a_key_that_is_listed_twice_counts_twice() -> None:
    layout = IndexList(torch.tensor([[1, 1, 0], [2, -1, 2], [0, 1, 2]]))
    assert pairs_by_cell(layout, 1, 1).tolist() == [[1, 2, 0], [0, 0, 2], [1, 1, 1]]
    assert pairs_by_cell(layout, 2, 2).tolist() == [[3, 2], [2, 1]]


@pytest.mark.parametrize("causal", [False, True])
def test_dense_attention_is_counted_without_its_mask(causal: bool) -> None:
    check(Dense(83, causal=causal))
    check(Dense(83, 83 if causal else 40, causal=causal))
    far = pairs_by_cell(Dense(1_000_000, causal=causal), 10_000, 10_000)
    assert int(far.sum()) == (1_000_000 * 1_000_001 // 2 if causal else 10**12)


def test_a_share_is_that_of_the_pairs_which_exist_in_smaller_cells_at_the_end_too() -> None:
    assert (share_by_cell(Dense(83, 41), 20, 7) == 1).all()


def test_a_million_tokens_take_seconds() -> None:
    """N^2 would take hours; the time is left generous, since cores are shared."""
    layout = patterns.random(1_000_000)
    start = time.process_time()
    assert int(pairs_by_cell(layout, 4096, 4096).sum()) == 8_000_000
    assert time.process_time() - start < 20


def test_an_unknown_kind_of_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="kind object cannot be drawn"):
        pairs_by_cell(object(), 1, 1)  # pyright: ignore[reportArgumentType]
