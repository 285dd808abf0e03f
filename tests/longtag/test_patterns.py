"""Every pattern that is shipped trains, as it is and with nested options changed from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from longtag.errors import UsageError

from .conftest import CONF, run_in_folder

PATTERNS = sorted(path.stem for path in (CONF / "pattern").glob("*.yaml"))
SHORT = ("trainer.max_steps=2", "trainer.val_check_interval=2", "test=false", "callbacks=none")


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["train/loss"] for record in records if "train/loss" in record]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_trains(tiny, tmp_path, pattern):
    options = []
    if pattern == "file":
        np.save(tmp_path / "table.npy", np.arange(70, dtype=np.int32)[:, None] // 2)
        options = [f"pattern.path={tmp_path}/table.npy"]
    run_in_folder(tiny(f"pattern={pattern}", *options, "tokens=70", *SHORT))
    found = losses(tmp_path / "run")
    assert len(found) == 2
    # Two steps from a guess among five labels.
    assert all(0.5 < loss < 4 for loss in found)
    assert json.loads((tmp_path / "run/summary.json").read_text())["pattern"] == pattern


@pytest.mark.parametrize(
    ("options", "edges"),
    [
        (
            ["pattern=documents", "pattern@pattern.within=local", "pattern.within.size=2", "pattern.lengths=[32,32]"],
            64 * 2,
        ),
        (
            [
                "pattern=union", "~pattern@pattern.patterns.hubs", "~pattern@pattern.patterns.random",
                "+pattern@pattern.patterns.far=dilated", "pattern.patterns.window.window=1",
                "pattern.patterns.far.dilations=[32]", "pattern.patterns.far.window=1",
            ],
            64 + 2 * 63 + 2 * 32,
        ),
        (
            ["pattern=per_head", "pattern@pattern.patterns.first=knn", "pattern.patterns.second.keys_per_query=2",
             "pattern.patterns.first.num_nearest=4"],
            64 * 6,
        ),
    ],
    ids=["documents", "union", "per_head"],
)  # fmt: skip
def test_a_mixture_is_made_on_the_command_line(tiny, capsys, options, edges):
    run_in_folder(tiny(*options, *SHORT))
    assert f"{edges:,} edges" in capsys.readouterr().out


def test_a_group_of_heads_that_chooses_its_keys_is_announced(tiny, capsys):
    run_in_folder(tiny("pattern=per_head", "pattern@pattern.patterns.first=knn", *SHORT))
    printed = capsys.readouterr().out
    assert "keys chosen at every step" in printed
    assert "head 0: reference (" in printed


def test_what_a_nested_pattern_refuses_is_named_by_its_path(tiny):
    with pytest.raises(UsageError, match=r"pattern\.patterns\.window\.window=-1: expected a whole number"):
        run_in_folder(tiny("pattern=union", "pattern.patterns.window.window=-1"))


def test_lists_for_another_number_of_heads_are_refused(tiny, tmp_path):
    np.save(tmp_path / "table.npy", np.zeros((3, 64, 2), dtype=np.int32))
    with pytest.raises(
        UsageError, match=r"pattern: it has lists for 3 heads, the model has 2; give model\.num_heads=3"
    ):
        run_in_folder(tiny("pattern=file", f"pattern.path={tmp_path}/table.npy"))


@pytest.mark.parametrize("implementation", ["reference", "chunked"])
def test_dense_attention_trains_with_an_implementation_by_name(tiny, tmp_path, implementation):
    run_in_folder(tiny("pattern=dense", f"implementation={implementation}", *SHORT))
    assert json.loads((tmp_path / "run/summary.json").read_text())["implementation"] == implementation
