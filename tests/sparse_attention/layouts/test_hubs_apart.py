"""HubsApart: which pairs it stands for, what it tells of itself, and what it refuses."""

import pickle

import pytest
import torch

from sparse_attention import BlockSparse, HubsApart, patterns
from sparse_attention.layouts.block_lists import WHOLE
from sparse_attention.layouts.block_sparse import BLOCK_SIZES
from tests.sparse_attention.block_layouts import AWKWARD_HUBS, block_layout, hubs_layout


@pytest.mark.parametrize("size", BLOCK_SIZES)
@pytest.mark.parametrize("n", [9, 64, 131])
@pytest.mark.parametrize("name", AWKWARD_HUBS)
def test_a_pair_counts_once_whoever_lists_it(name: str, n: int, size: int) -> None:
    layout = hubs_layout(name, num_tokens=n, block_size=size, seed=n)
    columns, rows = AWKWARD_HUBS[name](n)
    seen = block_layout(num_tokens=n, block_size=size, seed=n).dense_mask()
    seen[:, columns] = True
    seen[rows] = True
    assert torch.equal(layout.dense_mask(), seen)
    assert torch.equal(layout.degrees, seen.sum(dim=0))
    assert layout.num_edges == int(seen.sum())
    assert layout.density == pytest.approx(float(seen.double().mean()))
    # What stays in the rest is of no hub.
    assert not layout.rest.dense_mask()[:, columns].any()
    assert not layout.rest.dense_mask()[rows].any()


def test_the_longer_sequence_pairs_copies_with_originals_alone() -> None:
    layout = hubs_layout("other keys than queries", num_tokens=50, seed=1)
    seen = layout.blocks.dense_mask()
    first = layout.first_copy
    assert (first, seen.shape[0]) == (64, 64 + 16)
    assert seen[:50, first:].sum(dim=1).tolist() == [0 if query in (3, 49) else 6 for query in range(50)]
    assert seen[first : first + 2, :50].all()
    assert int(seen.sum()) == layout.num_edges


def test_hubs_side_by_side_fill_whole_blocks() -> None:
    rest = patterns.window(640, window=0, layout="block_sparse")
    assert isinstance(rest, BlockSparse)
    layout = HubsApart(rest, columns=range(5, 640, 10))
    # 64 hubs, one in each stretch of ten: a block of the diagonal and a block of hubs in each of ten rows.
    assert layout.blocks.num_entries == 20
    assert int((layout.blocks.lists.masks == WHOLE).sum()) == 10


def test_equal_tiles_share_a_mask() -> None:
    layout = patterns.hubs(64 * 300, num_hubs=300, window=8, layout="hubs_apart")
    assert isinstance(layout, HubsApart)
    assert layout.blocks.mask_words.shape[0] < 20


def test_moving_takes_everything_along_and_only_where_there_is_need() -> None:
    layout = hubs_layout("both ways", num_tokens=40)
    _ = layout.blocks.transposed, layout.num_edges, layout.rule
    assert layout.to("cpu") is layout
    moved = layout.to("meta")
    assert {moved.device, moved.blocks.device, moved.rows_index.device, moved.columns_index.device} == {
        torch.device("meta")
    }
    assert moved.blocks.transposed.blocks.device == torch.device("meta")
    assert (moved.rule, moved.columns, moved.rows) == (layout.rule, layout.columns, layout.rows)
    assert layout.device == torch.device("cpu")


def test_a_copy_through_pickle_is_the_same() -> None:
    layout = hubs_layout("other keys than queries", num_tokens=40)
    assert torch.equal(pickle.loads(pickle.dumps(layout)).dense_mask(), layout.dense_mask())


def test_its_name_says_its_size() -> None:
    layout = HubsApart(patterns.window(20, window=1, layout="block_sparse", block_size=16), columns=[3], rows=[3, 9])  # pyright: ignore[reportArgumentType]
    assert repr(layout).startswith("HubsApart(20 queries and keys, 1 keys and 2 queries apart, 8 blocks of 16, ")


@pytest.mark.parametrize(
    ("rest", "hubs", "message"),
    [
        (block_layout(num_tokens=20), {}, r"columns=\(\) and rows=\(\): expected a position"),
        (block_layout(num_tokens=20), {"columns": [20]}, "columns: token 20 does not exist; expected 0 to 19"),
        (block_layout(num_tokens=20), {"rows": [-1]}, "rows: token -1 does not exist; expected 0 to 19"),
        (block_layout(num_tokens=20), {"rows": [4, 2, 4]}, "rows: token 4 is listed twice"),
        (block_layout(num_tokens=20, num_keys=30), {"rows": [4]}, "rest: expected as many keys as queries"),
        (block_layout(num_tokens=20, heads=2), {"rows": [4]}, "lists that all heads share, got BlockSparse"),
    ],
)
def test_what_it_refuses_is_named(rest: BlockSparse, hubs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubsApart(rest, **hubs)
