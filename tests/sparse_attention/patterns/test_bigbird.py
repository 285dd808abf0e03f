"""BigBird: which blocks are in the window, which are global, and how the others are drawn."""

import pytest
import torch

from sparse_attention import Layout, patterns
from sparse_attention.patterns.bigbird import with_random_blocks


def blocks_of(layout: Layout, size: int = 16) -> list[set[int]]:
    mask = layout.dense_mask()
    return [set(row.nonzero().flatten().tolist()) for row in mask[::size, ::size]]


def without_draws(num_blocks: int, **options: int) -> list[set[int]]:
    nothing = torch.empty(num_blocks, 0, dtype=torch.int64)
    return blocks_of(with_random_blocks(16 * num_blocks - 3, nothing, block_size=16, **options))


def test_first_and_last_block_are_global_and_the_window_is_cut_at_the_ends() -> None:
    everything = set(range(7))
    assert without_draws(7) == [
        everything, {0, 1, 2, 6}, {0, 1, 2, 3, 6}, {0, 2, 3, 4, 6}, {0, 3, 4, 5, 6}, {0, 4, 5, 6}, everything
    ]  # fmt: skip


def test_the_first_half_of_the_global_blocks_rounded_up_is_at_the_start() -> None:
    rows = without_draws(8, num_global=3, num_window=1)
    assert rows[3] == {0, 1, 7, 3}
    assert [len(row) for row in rows] == [8, 8, 4, 4, 4, 4, 4, 8]
    assert without_draws(3, num_global=0, num_window=1) == [{0}, {1}, {2}]
    assert without_draws(2, num_global=6) == [{0, 1}, {0, 1}]


def test_given_random_blocks_are_seen_as_they_are() -> None:
    drawn = [[-1, -1], [4, 5], [4, -1], [1, 1], [2, 1], [3, 2], [-1, -1]]
    rows = blocks_of(with_random_blocks(16 * 7, drawn, block_size=16))
    assert rows[1] == {0, 1, 2, 4, 5, 6}
    assert rows[3] == {0, 1, 2, 3, 4, 6}


def test_drawn_blocks_are_new_to_their_row_and_uniform() -> None:
    num_blocks, counts = 12, torch.zeros(12)
    for seed in range(150):
        rows = blocks_of(patterns.bigbird(16 * num_blocks, block_size=16, seed=seed))
        for row, seen in enumerate(rows[1:-1], 1):
            known = {0, row - 1, row, row + 1, num_blocks - 1}
            assert known <= seen
            assert len(seen - known) == 3
        counts[list(rows[5] - {0, 4, 5, 6, 11})] += 1
    # Row 5 chooses 3 of 7: binomial with mean 64 and deviation 6.1; five deviations hold all of them.
    assert counts[[1, 2, 3, 7, 8, 9, 10]].sub(150 * 3 / 7).abs().max() < 5 * 6.1


def test_all_blocks_that_are_left_are_taken_where_there_are_fewer() -> None:
    assert all(len(row) == 6 for row in blocks_of(patterns.bigbird(16 * 6, block_size=16, num_random=9)))


def test_a_seed_gives_its_draw_again_and_every_head_its_own() -> None:
    first, again, other = (patterns.bigbird(1600, block_size=16, seed=seed).dense_mask() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    heads = patterns.bigbird(1600, block_size=16, num_heads=2).dense_mask()
    assert heads.shape == (2, 1600, 1600)
    assert not torch.equal(heads[0], heads[1])


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    patterns.bigbird(100, block_size=16)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_window": 2}, "num_window=2: expected an odd number"),
        ({"block_size": 48}, "block_size=48: expected one of 16, 32, 64, 128"),
        ({"num_random": -1}, "num_random=-1: expected a whole number, 0 or more"),
        ({"num_global": -1}, "num_global=-1: expected a whole number, 0 or more"),
        ({"num_heads": 0}, "num_heads=0: expected a whole number, 1 or more"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patterns.bigbird(100, **options)


@pytest.mark.parametrize(
    ("table", "message"), [([[0]], "with 7 blocks of 16 for 100 tokens"), ([[7]] * 7, "expected a block from 0 to 6")]
)
def test_random_blocks_that_cannot_be_are_refused(table: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_random_blocks(100, table, block_size=16)
