import numpy as np
import pytest
import torch

from longtag.data.crops import RandomCrops, TiledCrops
from longtag.data.source import IGNORED, Block
from longtag.errors import UsageError
from tests.longtag.data.conftest import RulerSource


def starts(crops: RandomCrops, num: int) -> np.ndarray:
    return np.array([crops[i][0][0].item() for i in range(num)])


def test_an_item_depends_on_seed_and_number_alone(ruler: RulerSource):
    first, again = (RandomCrops(ruler, length=30, seed=3) for _ in range(2))
    forward = [first[i] for i in range(20)]
    for i in reversed(range(20)):
        inputs, labels = again[i]
        assert torch.equal(inputs, forward[i][0])
        assert torch.equal(labels, forward[i][1])
    assert starts(first, 50).tolist() != starts(RandomCrops(ruler, length=30, seed=4), 50).tolist()


def test_every_possible_crop_is_equally_likely(ruler: RulerSource):
    found, counts = np.unique(starts(RandomCrops(ruler, length=30), 10_000), return_counts=True)
    assert found.tolist() == [*range(11), *range(1010, 1051)]
    expected = 10_000 / 52
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 51 + 5 * np.sqrt(2 * 51)


def test_crops_have_their_length_and_stay_in_their_block(ruler: RulerSource):
    for i in range(200):
        inputs, labels = RandomCrops(ruler, length=40)[i]
        assert inputs.shape == labels.shape == (40,)
        assert torch.equal(inputs.diff(), torch.ones(39, dtype=torch.int64))
        assert inputs[0] == 0 or 1010 <= inputs[0] <= 1040


def test_crops_of_a_circular_block_begin_anywhere():
    source = RulerSource(train=(Block(0, 0, 20, circular=True),))
    crops = RandomCrops(source, length=20)
    assert set(starts(crops, 500).tolist()) == set(range(20))
    assert all(sorted(crops[i][0].tolist()) == list(range(20)) for i in range(20))


def test_a_crop_longer_than_every_train_block_names_tokens_and_the_longest_block(ruler: RulerSource):
    assert RandomCrops(ruler, length=70)[0][0][0] == 1010
    with pytest.raises(
        UsageError, match="tokens=71: no train block is that long, the longest has 70 tokens; set tokens=70"
    ):
        RandomCrops(ruler, length=71)


@pytest.mark.parametrize("length", [1, 3, 7, 8, 10, 24, 25, 26, 1000])
def test_tiles_score_every_token_exactly_once(ruler: RulerSource, length: int):
    scored = []
    tiles = TiledCrops(ruler, "val", length=length)
    for i in range(len(tiles)):
        inputs, labels = tiles[i]
        assert inputs.shape == labels.shape == (tiles.sizes[i],)
        assert torch.equal(labels[labels != IGNORED], inputs[labels != IGNORED] % 5)
        scored += inputs[labels != IGNORED].tolist()
    assert sorted(scored) == [*range(100, 125), *range(1200, 1207)]


def test_the_last_tile_is_shifted_back_and_a_short_block_is_one_short_tile(ruler: RulerSource):
    tiles = TiledCrops(ruler, "val", length=10)
    assert tiles.sizes == [10, 10, 10, 7]
    assert [tiles[i][0][0].item() for i in range(4)] == [100, 110, 115, 1200]
    assert (tiles[2][1] == IGNORED).tolist() == [True] * 5 + [False] * 5


def test_labels_of_the_source_are_left_alone_when_tiles_are_masked(ruler: RulerSource):
    tiles = TiledCrops(ruler, "val", length=10)
    _, labels = tiles[2]
    assert (labels == IGNORED).any()
    assert not (ruler.read(ruler.blocks("val")[0], 0, 25)[1] == IGNORED).any()


@pytest.mark.parametrize("limit", range(1, 7))
def test_limited_tiles_are_spread_evenly(limit: int):
    tiles = TiledCrops(RulerSource(val=(Block(0, 0, 60),)), "val", length=10, limit=limit)
    firsts = [tiles[i][0][0].item() for i in range(len(tiles))]
    assert len(set(firsts)) == limit
    centre = np.mean(firsts) + 5
    assert abs(centre - 30) <= 5


def test_a_limit_above_the_number_of_tiles_takes_all(ruler: RulerSource):
    assert len(TiledCrops(ruler, "val", length=10, limit=99)) == 4


def test_numbers_behind_the_last_tile_give_the_tiles_without_labels(ruler: RulerSource):
    tiles = TiledCrops(ruler, "val", length=10)
    for i in range(4):
        inputs, labels = tiles[4 + i]
        assert torch.equal(inputs, tiles[i][0])
        assert (labels == IGNORED).all()
        assert labels.shape == inputs.shape


def test_distinct_crops_repeat(ruler: RulerSource):
    found = starts(RandomCrops(ruler, length=30, seed=3, distinct=4), 12)
    assert found[:4].tolist() == found[4:8].tolist() == found[8:].tolist()
    assert len(set(found[:4].tolist())) > 1
