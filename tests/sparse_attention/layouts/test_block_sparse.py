"""BlockSparse: what it accepts, what it says of what it does not, and its lists in both directions."""

import itertools
import pickle

import pytest
import torch
from torch import Tensor

from sparse_attention import BlockSparse
from sparse_attention.layouts.block_sparse import BLOCK_SIZES, pack_bits, unpack_bits, words_of


def drawn(num_tokens: int, num_keys: int, size: int, heads: int | None, seed: int) -> tuple[BlockSparse, Tensor]:
    """A layout of random entries, a third of them masked at random, and the dense mask that it stands for."""
    generator = torch.Generator().manual_seed(seed)
    num_rows, num_columns = -(-num_tokens // size), -(-num_keys // size)
    rows, blocks = (torch.rand((heads or 1) * num_rows, num_columns, generator=generator) < 0.4).nonzero().T
    bits = torch.rand(5, size, size, generator=generator) < 0.5
    masks = torch.randint(-10, 5, rows.shape, generator=generator).clamp(min=-1)
    dense = torch.zeros(heads or 1, num_rows * size, num_columns * size, dtype=torch.bool)
    for row, block, mask in zip(rows.tolist(), blocks.tolist(), masks.tolist(), strict=True):
        head, row = divmod(row, num_rows)
        tile = bits[mask] if mask >= 0 else torch.tensor(True)
        dense[head, row * size : (row + 1) * size, block * size : (block + 1) * size] = tile
    order = torch.randperm(rows.numel(), generator=generator)
    layout = BlockSparse(
        rows[order], blocks[order], masks[order], pack_bits(bits),
        block_size=size, num_tokens=num_tokens, num_keys=num_keys, num_heads=heads,
    )  # fmt: skip
    dense = dense[:, :num_tokens, :num_keys]
    return layout, dense if heads else dense[0]


@pytest.mark.parametrize("size", BLOCK_SIZES)
@pytest.mark.parametrize(("num_tokens", "num_keys", "heads"), [(128, 256, None), (131, 77, 2), (1, 1, None)])
def test_it_stands_for_the_mask_it_was_made_from(num_tokens: int, num_keys: int, size: int, heads: int | None) -> None:
    layout, dense = drawn(num_tokens, num_keys, size, heads, seed=size + num_tokens)
    assert torch.equal(layout.dense_mask(), dense)
    assert layout.num_edges == int(dense.sum())
    assert torch.equal(layout.degrees, dense.sum(dim=-2))
    assert layout.keys_per_query == pytest.approx(float(dense.sum(dim=-1).double().mean()))


@pytest.mark.parametrize("heads", [None, 3])
def test_rows_list_whole_blocks_first_and_each_kind_in_ascending_order(heads: int | None) -> None:
    layout, _ = drawn(150, 220, 16, heads, seed=1)
    for lists in (layout.lists, layout.transposed):
        ends = lists.offsets.tolist()
        for row, (start, end) in enumerate(itertools.pairwise(ends)):
            middle = int(lists.partial[row])
            assert start <= middle <= end
            assert (lists.masks[start:middle] == -1).all()
            assert (lists.masks[middle:end] >= 0).all()
            for part in (lists.blocks[start:middle], lists.blocks[middle:end]):
                assert (part.diff() > 0).all()


@pytest.mark.parametrize("heads", [None, 2])
def test_the_transposed_lists_hold_the_same_entries(heads: int | None) -> None:
    layout, _ = drawn(150, 220, 16, heads, seed=2)
    rows, columns = layout.lists.row_of_entry, layout.transposed.row_of_entry
    head, row = rows // layout.num_rows, rows % layout.num_rows
    forward = torch.stack((head, row, layout.lists.blocks, layout.lists.masks), dim=1)
    head, column = columns // layout.num_columns, columns % layout.num_columns
    backward = torch.stack((head, layout.transposed.blocks, column, layout.transposed.masks), dim=1)
    assert torch.equal(forward.unique(dim=0), backward.unique(dim=0))
    assert forward.shape == backward.shape == (layout.num_entries, 4)


@pytest.mark.parametrize("size", BLOCK_SIZES)
def test_bits_survive_packing(size: int) -> None:
    bits = torch.rand(3, size, size, generator=torch.Generator().manual_seed(size)) < 0.5
    words = pack_bits(bits)
    assert words.shape == (3, size, words_of(size))
    assert words.dtype == torch.int32
    assert torch.equal(unpack_bits(words, size), bits)


def test_a_table_of_blocks_may_have_empty_slots() -> None:
    table = torch.tensor([[0, -1, 2], [-1, -1, -1], [1, 0, -1]])
    layout = BlockSparse.from_table(table, block_size=16, num_tokens=40, num_keys=35)
    blocks = layout.dense_mask()[::16, ::16]
    assert torch.equal(blocks, torch.tensor([[True, False, True], [False] * 3, [True, True, False]]))


def test_moving_takes_the_transposed_lists_along() -> None:
    layout, _ = drawn(50, 50, 16, None, seed=3)
    assert layout.to("cpu") is layout
    built = layout.transposed
    moved = layout.to("meta")
    assert moved.device == torch.device("meta")
    assert moved.transposed.blocks.shape == built.blocks.shape
    assert layout.device == torch.device("cpu")
    assert layout.transposed is built


def test_it_can_be_pickled() -> None:
    layout, dense = drawn(50, 70, 32, 2, seed=4)
    copy = pickle.loads(pickle.dumps(layout))
    assert torch.equal(copy.dense_mask(), dense)
    assert repr(copy) == repr(layout)


ONE = torch.zeros(1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((ONE, ONE), {"block_size": 48}, "block_size=48: expected one of 16, 32, 64, 128"),
        ((ONE, ONE), {"num_tokens": 0}, "num_tokens=0: expected 1 to"),
        ((ONE, ONE[:0]), {}, r"blocks: expected an int32 or int64 tensor of shape \(entries,\)"),
        ((ONE.float(), ONE), {}, r"rows: expected an int32 or int64 tensor .* got float32 \(1,\)"),
        ((ONE, ONE, ONE, torch.zeros(1, 16, 1)), {}, r"mask_words: expected an int32 tensor .* got float32"),
        ((ONE, ONE, ONE), {}, "masks: entry 0 holds 0; expected -1 to -1"),
        ((ONE + 3, ONE), {}, "rows: entry 0 holds 3; expected 0 to 2"),
        ((ONE, torch.tensor([-1])), {}, "blocks: entry 0 holds -1; expected 0 to 2"),
        ((torch.tensor([1, 0, 1]), torch.tensor([2, 2, 2])), {}, "blocks: row 1 lists block 2 twice"),
    ],
)
def test_bad_input_is_named(arguments: tuple[Tensor, ...], options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockSparse(*arguments, **{"block_size": 16, "num_tokens": 40, **options})


@pytest.mark.parametrize(
    ("table", "message"),
    [(torch.zeros(2, 1), "with 3 rows for 40 tokens"), (torch.full((3, 1), -2), "holds -2; expected a block")],
)
def test_a_bad_table_is_named(table: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockSparse.from_table(table.long(), block_size=16, num_tokens=40)
