import numpy as np
import pytest
import torch

from longtag.data import IGNORED, Block, CropDataModule, RecallSource, Split, TokenIds
from longtag.data.crops import RandomCrops, TiledCrops
from longtag.errors import UsageError

SMALL = {"length": 300, "pairs": 3, "values": 5, "copies": 4, "queries": 20, "noise": 2, "min_distance": 2}


def sequences(source: RecallSource, split: Split = "val") -> list[tuple[np.ndarray, ...]]:
    """Ids, labels and distances of each sequence of a split, as arrays."""
    return [tuple(part.numpy() for part in source.read(block, 0, block.size)) for block in source.blocks(split)]


def stored_pairs(ids: np.ndarray) -> dict[int, tuple[int, list[int]]]:
    """Value and positions by key, found by looking at every token of a sequence of SMALL."""
    found: dict[int, tuple[int, list[int]]] = {}
    for position, token in enumerate(ids):
        if token >= 2 + 3:
            key, value = divmod(int(token) - 5, 5)
            assert found.setdefault(key, (value, []))[0] == value
            found[key][1].append(position)
    return found


@pytest.mark.parametrize("max_distance", [None, 60, 250])
def test_labels_and_distances_are_those_that_a_search_by_eye_finds(max_distance):
    num_labelled = 0
    for ids, labels, distances in sequences(RecallSource(**SMALL, max_distance=max_distance)):
        pairs = stored_pairs(ids)
        assert sorted(pairs) == [0, 1, 2]
        for _, positions in pairs.values():
            assert positions == list(range(positions[0], positions[0] + 4))
        for position, token in enumerate(ids):
            if 2 <= token < 5:
                value, positions = pairs[int(token) - 2]
                assert labels[position] == value
                assert distances[position] == min(abs(position - stored) for stored in positions)
                assert 2 <= distances[position] <= (max_distance or 150)
                num_labelled += 1
            else:
                assert labels[position] == IGNORED
    assert 0.6 * 32 * 60 < num_labelled < 32 * 60


def test_pairs_lie_before_and_behind_their_queries():
    behind = before = 0
    for ids, labels, distances in sequences(RecallSource(**SMALL)):
        for position in np.flatnonzero(labels != IGNORED):
            stored = stored_pairs(ids)[int(ids[position]) - 2][1]
            behind += position - distances[position] == stored[-1]
            before += position + distances[position] == stored[0]
    assert min(before, behind) > 0.4 * (before + behind)


def test_the_logarithm_of_the_distance_is_uniform():
    source = RecallSource(length=50_000, pairs=4, queries=50, min_distance=64, max_distance=32_768, sequences=128)
    distances = np.concatenate([distances[labels != IGNORED] for _, labels, distances in sequences(source)])
    assert len(distances) > 0.98 * 128 * 4 * 50
    in_octave = np.histogram(np.log2(distances), bins=np.arange(6, 16))[0]
    assert (np.abs(in_octave / len(distances) - 1 / 9) < 0.01).all()


def test_pairs_that_need_no_more_than_half_of_the_length_lie_anywhere():
    source = RecallSource(length=100, pairs=1, copies=1, queries=1, sequences=4000)
    positions = [int(ids.argmax()) for ids, _, _ in sequences(source)]
    counts = np.histogram(positions, bins=np.arange(0, 101, 10))[0]
    assert counts.min() > 300
    assert counts.max() < 500


def test_in_training_values_are_drawn_evenly_and_independently_of_key_place_and_each_other():
    crops = RandomCrops(RecallSource(**SMALL), length=300)
    by_key, by_neighbour, by_half = np.zeros((3, 5)), np.zeros((5, 5)), np.zeros((2, 5))
    for i in range(2000):
        pairs = stored_pairs(crops[i][0].numpy())
        for key, (value, positions) in pairs.items():
            by_key[key, value] += 1
            by_neighbour[pairs[(key + 1) % 3][0], value] += 1
            by_half[int(positions[0] >= 150), value] += 1
    for counts in (by_key, by_neighbour, by_half):
        assert (np.abs(counts / counts.sum(axis=1, keepdims=True) - 1 / 5) < 0.05).all()


def test_in_validation_a_guess_that_never_changes_is_right_as_often_as_chance():
    pairs = [stored_pairs(ids) for ids, _, _ in sequences(RecallSource(**SMALL, sequences=20))]
    values = np.array([[pair[key][0] for key in range(3)] for pair in pairs])
    for of_key in values.T:
        assert np.bincount(of_key).tolist() == [4] * 5
    assert (values[:5] != values[5:10]).any()


def test_a_training_crop_depends_on_its_number_alone_and_never_repeats():
    first, again = (RandomCrops(RecallSource(**SMALL), length=300, seed=7) for _ in range(2))
    crops = [first[i] for i in range(20)]
    for i in reversed(range(20)):
        assert all(torch.equal(one, other) for one, other in zip(crops[i], again[i], strict=True))
    assert len({tuple(crop[0].tolist()) for crop in crops}) == 20


def test_validation_and_test_are_fixed_and_differ_from_each_other_from_training_and_by_seed():
    source, again, other = (RecallSource(**SMALL, seed=seed) for seed in (3, 3, 4))
    rows = [tuple(sequence[0]) for sequence in sequences(source, "val") + sequences(source, "test")]
    assert rows == [tuple(sequence[0]) for sequence in sequences(again, "val") + sequences(again, "test")]
    rows += [tuple(sequence[0]) for sequence in sequences(other)]
    # The same seed for the crops, and more of them than there are sequences.
    rows += [tuple(RandomCrops(source, length=300, seed=3)[i][0].tolist()) for i in range(100)]
    assert len(set(rows)) == len(rows) == 3 * 32 + 100


def test_in_a_crop_only_queries_whose_pair_lies_in_it_have_a_label():
    source = RecallSource(**SMALL)
    tiles = TiledCrops(source, "val", length=100)
    assert len(tiles) == 3 * 32
    num_labelled = 0
    for tile in range(len(tiles)):
        ids, labels, distances = (part.numpy() for part in tiles[tile])
        for position in np.flatnonzero(labels != IGNORED):
            _, stored = stored_pairs(ids)[int(ids[position]) - 2]
            assert min(abs(position - place) for place in stored) == distances[position]
            num_labelled += 1
    assert num_labelled > 300


def test_classes_are_counted_as_they_occur_and_alike_in_training():
    source = RecallSource(**SMALL)
    labels = np.concatenate([labels for _, labels, _ in sequences(source, "test")])
    assert source.class_counts("test").tolist() == [int((labels == value).sum()) for value in range(5)]
    assert len(set(source.class_counts("train"))) == 1
    assert source.class_names == ("value 0", "value 1", "value 2", "value 3", "value 4")
    assert source.inputs == TokenIds(2 + 3 + 3 * 5)


def test_ids_stay_in_the_vocabulary_and_every_one_is_used():
    ids = np.concatenate([ids for ids, _, _ in sequences(RecallSource(**SMALL))])
    assert set(ids) == set(range(20))


def test_batches_carry_distances():
    batch = next(iter(CropDataModule(source=RecallSource(**SMALL), length=300, batch_size=2).train_dataloader()))
    assert set(batch) == {"inputs", "labels", "distances"}
    assert batch["distances"].shape == (2, 300)
    assert batch["distances"].dtype == torch.int32
    assert (batch["distances"][batch["labels"] != IGNORED] >= 2).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs=0: must be 1 or more"),
        ({"values": 1}, "values=1: must be 2 or more"),
        ({"min_distance": 0}, "min_distance=0: must be 1 or more"),
        ({"max_distance": 1}, "max_distance=1: must be 2 or more"),
        ({"max_distance": 297}, "length=300: no room for pairs=3 of copies=4 tokens with max_distance=297"),
        ({"copies": 80, "max_distance": 150}, "length=300: no room for pairs=3 of copies=80"),
    ],
)
def test_numbers_that_leave_nothing_to_recall_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        RecallSource(**{**SMALL, **options})


@pytest.mark.parametrize("options", [{"max_distance": 291}, {"copies": 50, "max_distance": 150}])
def test_the_tightest_fit_still_holds_every_pair(options):
    source = RecallSource(**{**SMALL, **options, "sequences": 200})
    copies = options.get("copies", 4)
    for ids, _, _ in sequences(source):
        assert [len(positions) for _, positions in stored_pairs(ids).values()] == [copies] * 3


def test_a_block_is_one_sequence():
    assert list(RecallSource(**SMALL).blocks("train")) == [Block(0, 0, 300)]
