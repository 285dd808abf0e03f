from itertools import islice

import pytest

from longtag.data.samplers import ConsecutiveItems, TileBatches


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_consecutive_items(world_size: int):
    passes = [
        list(islice(ConsecutiveItems(lambda: 12, rank=rank, world_size=world_size), 4)) for rank in range(world_size)
    ]
    assert sorted(item for items in passes for item in items) == list(range(12, 12 + 4 * world_size))
    assert [items[0] for items in passes] == list(range(12, 12 + world_size))


def test_each_pass_begins_where_training_has_come_to():
    seen = [0]
    sampler = ConsecutiveItems(lambda: seen[0])
    assert list(islice(sampler, 3)) == [0, 1, 2]
    seen[0] = 2
    assert list(islice(sampler, 3)) == [2, 3, 4]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 10])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_tile_is_read_by_one_rank_in_a_batch_of_tiles_of_its_size(batch_size: int, world_size: int):
    sizes = [10, 10, 10, 7, 10, 10, 3, 7]
    ranks = [list(TileBatches(sizes, batch_size, rank=rank, world_size=world_size)) for rank in range(world_size)]
    tiles = sorted(tile for batches in ranks for batch in batches for tile in batch if tile < len(sizes))
    assert tiles == list(range(len(sizes)))
    for batch in (batch for batches in ranks for batch in batches):
        assert len({sizes[tile % len(sizes)] for tile in batch}) == 1
        assert len(batch) <= batch_size


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_all_ranks_take_the_same_number_of_steps(world_size: int):
    samplers = [TileBatches([10] * 5, 2, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert len({len(list(sampler)) for sampler in samplers}) == 1
    assert len(samplers[0]) == len(list(samplers[0])) >= 1


def test_a_single_rank_reads_no_blank_tiles():
    assert list(TileBatches([5, 5, 5], 2)) == [[0, 1], [2]]
