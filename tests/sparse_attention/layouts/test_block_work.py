"""How rows are dealt out: every entry once, long rows in segments, the longest pieces first."""

import pytest
import torch

from sparse_attention import BlockSparse
from sparse_attention.layouts import block_work
from sparse_attention.layouts.bit_masks import unpack_bits
from tests.sparse_attention.block_layouts import block_layout


@pytest.mark.parametrize("longest", [1, 2, 3, 100])
@pytest.mark.parametrize("heads", [None, 2])
def test_items_cover_every_entry_of_every_row_once(
    longest: int, heads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_work, "where_to_cut", lambda num_entries, num_rows, block_size: (longest, longest))
    layout = block_layout("global rows and columns", num_tokens=150, heads=heads, seed=longest)
    for lists, work in ((layout.lists, layout.work), (layout.transposed, layout.transposed_work)):
        row, start, end, first_block = work.items.long().unbind(1)
        assert (end - start <= longest).all()
        entries = torch.cat([torch.arange(int(low), int(high)) for low, high in zip(start, end, strict=True)])
        assert torch.equal(entries.sort().values, torch.arange(layout.num_entries))
        rows = torch.cat([r.expand(int(high - low)) for r, low, high in zip(row, start, end, strict=True)])
        assert torch.equal(rows[entries.argsort()], lists.row_of_entry)
        assert torch.equal(row.unique(), torch.arange(lists.partial.numel()))
        some = start < end
        assert torch.equal(first_block[some], lists.blocks[start[some]].long())


def test_segments_come_first_each_with_its_place_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_work, "where_to_cut", lambda num_entries, num_rows, block_size: (6, 6))
    work = block_layout("global rows and columns", num_tokens=150, seed=1).work
    assert work.num_segments > 0
    row, first, count = work.splits.long().unbind(1)
    assert torch.equal(work.items[: work.num_segments, 0].long(), row)
    for slot in range(work.num_segments):
        same = (row == row[slot]).nonzero().squeeze(1)
        assert torch.equal(same, torch.arange(int(first[slot]), int(first[slot] + count[slot])))
        assert work.items[slot, 1] == work.items[first[slot], 1] + (slot - first[slot]) * (
            work.items[first[slot], 2] - work.items[first[slot], 1]
        )
    alone = work.items[work.num_segments :]
    assert alone.shape[0] > 1
    assert (alone[:, 2] - alone[:, 1]).diff().max() <= 0
    assert not torch.isin(alone[:, 0].long(), row).any()


@pytest.mark.parametrize(
    ("num_entries", "num_rows", "beyond", "longest"),
    [
        pytest.param(15_360, 1536, 40, 40, id="a long sequence: four times the mean"),
        pytest.param(1_300, 130, 24, 20, id="a shorter one: a part of the whole"),
        pytest.param(320, 32, 24, 10, id="a short one: twice the mean is no long row"),
        pytest.param(144, 16, 24, 8, id="so short that nothing is cut"),
        pytest.param(1_600, 1, 25, 25, id="all entries in one row"),
    ],
)
def test_rows_are_cut_by_what_there_is_beside_them(num_entries, num_rows, beyond, longest) -> None:
    assert block_work.where_to_cut(num_entries, num_rows, block_size=64) == (beyond, longest)


def test_rows_of_equal_length_are_cut_only_if_they_are_few() -> None:
    assert block_layout("all blocks", num_tokens=3000, block_size=16).work.num_segments == 0
    few = BlockSparse.from_table(torch.arange(300).expand(2, -1), block_size=16, num_tokens=20, num_keys=4800)
    assert few.work.num_segments == 20
    assert few.transposed_work.num_segments == 0


def test_a_layout_without_entries_still_has_an_item_for_each_row() -> None:
    layout = block_layout("no block", num_tokens=40)
    assert layout.work.items.tolist() == [[row, 0, 0, 0] for row in range(3)]


def test_moving_takes_the_work_along() -> None:
    layout = block_layout(num_tokens=40)
    layout.build()
    moved = layout.to("meta")
    assert moved.is_built(transposed=True)
    assert moved.work.items.device == moved.transposed_mask_words.device == torch.device("meta")
    assert not block_layout(num_tokens=40).is_built(transposed=False)


def test_masks_by_column_are_those_by_row_transposed() -> None:
    layout = block_layout(num_tokens=300, block_size=64, seed=3)
    assert torch.equal(unpack_bits(layout.transposed_mask_words, 64), layout.mask_bits.mT)
