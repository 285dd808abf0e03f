import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from longtag.data.source import Block
from longtag.data.splits import SPLITS, make_split, read_split
from longtag.errors import UsageError

SPLIT = {"train": [[0, 40]], "val": [[50, 60]], "test": [[70, 100]]}


def read(tmp_path: Path, content: Any, **contigs: int):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    contigs = contigs or {"chr": 100}
    return read_split(path, contigs, [False] * len(contigs))


@pytest.mark.parametrize("seed", range(20))
def test_a_split_made_by_rule_uses_no_base_twice_and_keeps_the_fractions(seed: int):
    rng = np.random.default_rng(seed)
    lengths = [int(length) for length in np.exp(rng.uniform(5, 12, rng.integers(8, 60)))] + [300_000]
    blocks = make_split(lengths, [False] * len(lengths), val_fraction=0.15, test_fraction=0.1, gap=500)
    used = [np.zeros(length, dtype=int) for length in lengths]
    for split in SPLITS:
        for block in blocks[split]:
            assert 0 <= block.start < block.stop <= lengths[block.record]
            used[block.record][block.start : block.stop] += 1
    assert all(bases.max(initial=0) <= 1 for bases in used)
    sizes = {split: sum(block.size for block in blocks[split]) for split in SPLITS}
    assert sizes["val"] / sum(sizes.values()) == pytest.approx(0.15, abs=0.03)
    assert sizes["test"] / sum(sizes.values()) == pytest.approx(0.1, abs=0.03)
    assert blocks == make_split(lengths, [False] * len(lengths), val_fraction=0.15, test_fraction=0.1, gap=500)


def test_blocks_of_a_cut_contig_interleave_with_gaps_also_round_the_origin():
    blocks = make_split([1_000_000], [True], val_fraction=0.1, test_fraction=0.1, gap=10_000)
    ordered = sorted((block.start, block.stop, split) for split in SPLITS for block in blocks[split])
    assert [split for _, _, split in ordered] == ["train", "val", "train", "test"] * 2
    assert all(after[0] - before[1] >= 10_000 for before, after in pairwise(ordered))
    assert ordered[0][0] + 1_000_000 - ordered[-1][1] >= 10_000


def test_small_contigs_go_whole_to_one_split_and_keep_their_circle():
    blocks = make_split([500] * 10, [True] * 10, val_fraction=0.1, test_fraction=0.2, gap=1000)
    assert [len(blocks[split]) for split in SPLITS] == [7, 1, 2]
    assert all(block == Block(block.record, 0, 500, circular=True) for split in SPLITS for block in blocks[split])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.0}, "val_fraction=0.0: must lie between 0 and 1"),
        ({"test_fraction": 1.5}, "test_fraction=1.5: must lie between 0 and 1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"gap": -1}, "split_gap=-1"),
        ({"gap": 100_000}, "cannot be divided with split_gap=100000.*split=FILE.json"),
    ],
)
def test_a_split_that_cannot_be_made_says_which_option_to_change(options: dict[str, float], message: str):
    with pytest.raises(UsageError, match=message):
        make_split([200_000], [False], **{"val_fraction": 0.1, "test_fraction": 0.1, "gap": 10, **options})  # pyright: ignore


def test_intervals_are_read_from_json_plain_or_by_contig(tmp_path: Path):
    plain = read(tmp_path, SPLIT)
    assert plain == {"train": (Block(0, 0, 40),), "val": (Block(0, 50, 60),), "test": (Block(0, 70, 100),)}
    by_contig = {"train": {"b": [[0, 5]]}, "val": {"a": [[0, 9]]}, "test": {"a": [[9, 10]], "b": [[6, 7]]}}
    blocks = read(tmp_path, by_contig, a=10, b=20)
    assert blocks["train"] == (Block(1, 0, 5),)
    assert blocks["test"] == (Block(0, 9, 10), Block(1, 6, 7))


def test_a_whole_circular_contig_is_a_circular_block(tmp_path: Path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": {"a": [[0, 10]]}, "val": {"b": [[0, 4]]}, "test": {"b": [[4, 8]]}}))
    blocks = read_split(path, {"a": 10, "b": 10}, [True, True])
    assert blocks["train"][0].circular
    assert not blocks["val"][0].circular


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param([], "expected", id="a list"),
        pytest.param({"train": [[0, 9]]}, "expected", id="splits missing"),
        pytest.param({**SPLIT, "val": 3}, "expected", id="no list"),
        pytest.param({**SPLIT, "val": {"chr": 3}}, "expected", id="no list in a contig"),
        pytest.param({**SPLIT, "val": []}, "no interval for val", id="an empty split"),
        pytest.param({**SPLIT, "val": [[50]]}, r"\[50\] on contig chr is no \[start, stop\]", id="one number"),
        pytest.param({**SPLIT, "val": [[50, 55.5]]}, "is no", id="a float"),
        pytest.param({**SPLIT, "val": [[60, 50]]}, "0 <= start < stop <= 100", id="stop before start"),
        pytest.param({**SPLIT, "test": [[70, 101]]}, "0 <= start < stop <= 100", id="outside"),
        pytest.param(
            {**SPLIT, "val": [[39, 60]]}, r"\(train\) and \[39, 60\] \(val\) on contig chr overlap", id="overlap"
        ),
        pytest.param({**SPLIT, "val": {"plasmid": [[0, 1]]}}, "contig 'plasmid' is not in the genome", id="contig"),
    ],
)
def test_a_split_file_that_cannot_be_used_is_named_with_its_fault(tmp_path: Path, content: Any, message: str):
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path, content)
    assert "split=" in str(error.value)


def test_plain_intervals_for_several_contigs_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="2 contigs, so intervals must be listed by contig"):
        read(tmp_path, SPLIT, a=100, b=100)


def test_a_split_file_that_is_no_json_or_missing_is_a_usage_error(tmp_path: Path):
    path = tmp_path / "split.json"
    path.write_text("{train")
    with pytest.raises(UsageError, match="not json"):
        read_split(path, {"chr": 100}, [False])
    with pytest.raises(UsageError, match=r"split=.*absent.*no such file"):
        read_split(tmp_path / "absent", {"chr": 100}, [False])
