import pytest
import torch

from longtag.data import SyntheticSource, Vectors
from longtag.errors import UsageError


def whole(source: SyntheticSource, split):
    (block,) = source.blocks(split)
    return source.read(block, 0, block.size)


def test_vectors_are_standard_normal_and_labels_uniform():
    source = SyntheticSource(length=20_000, width=16, num_classes=10, seed=7)
    vectors, labels = whole(source, "train")
    assert source.inputs == Vectors(16)
    assert len(source.class_names) == 10
    assert vectors.shape == (20_000, 16)
    assert vectors.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert abs(vectors.mean().item()) < 0.01
    assert vectors.std().item() == pytest.approx(1, abs=0.01)
    counts = source.class_counts("train")
    assert counts.sum() == 20_000
    assert counts.min() > 1700


def test_splits_and_seeds_differ_and_the_same_seed_repeats():
    first, again, other = (SyntheticSource(length=50, width=4, seed=seed) for seed in (1, 1, 2))
    sequences = [whole(first, "train"), whole(first, "val"), whole(first, "test"), whole(other, "train")]
    for i, one in enumerate(sequences):
        for another in sequences[:i]:
            assert not torch.equal(one[0], another[0])
            assert not torch.equal(one[1], another[1])
    assert torch.equal(whole(first, "val")[0], whole(again, "val")[0])
    assert torch.equal(whole(first, "val")[1], whole(again, "val")[1])


def test_a_sequence_is_made_once_and_reading_copies_nothing():
    source = SyntheticSource(length=50, width=4)
    vectors, _ = whole(source, "train")
    (block,) = source.blocks("train")
    part, _ = source.read(block, 10, 5)
    assert part.data_ptr() == vectors[10:].data_ptr()


@pytest.mark.parametrize("option", ["length", "width", "num_classes"])
def test_sizes_below_one_are_refused(option: str):
    with pytest.raises(UsageError, match=f"{option}=0: must be 1 or more"):
        SyntheticSource(**{"length": 5, option: 0})


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed=-1"):
        SyntheticSource(length=5, seed=-1)
