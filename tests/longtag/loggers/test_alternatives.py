"""TensorBoard and CSV instead of W&B: the same figures, and a run that goes on loses none."""

import csv
import json
from pathlib import Path

import pytest

from longtag.errors import UsageError
from longtag.loggers.tensorboard import tensorboard_logger

from ..conftest import run_in_folder


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_csv_holds_the_figures_of_every_step_and_each_start_has_its_table(tiny, tmp_path):
    run_in_folder(tiny("logger=csv", "test=false"))
    run_in_folder(tiny("logger=csv", "test=false", "trainer.max_steps=6"))
    rows = []
    for start in ("0", "1"):
        with (tmp_path / "run/csv" / start / "metrics.csv").open(newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["train/loss"]]
    expected = [line for line in lines(tmp_path / "run") if "train/loss" in line]
    assert [int(row["step"]) for row in rows] == [line["step"] for line in expected] == list(range(6))
    for row, line in zip(rows, expected, strict=True):
        for name in ("train/loss", "optim/gradient_norm", "throughput/step_ms"):
            assert float(row[name]) == pytest.approx(line[name])


def test_tensorboard_holds_the_figures_of_every_step_of_all_starts(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import (  # pyright: ignore[reportMissingImports]
        event_accumulator,
    )

    run_in_folder(tiny("logger=tensorboard", "test=false"))
    run_in_folder(tiny("logger=tensorboard", "test=false", "trainer.max_steps=6"))
    events = event_accumulator.EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    for name in ("train/loss", "val/loss"):
        expected = [(line["step"], line[name]) for line in lines(tmp_path / "run") if name in line]
        found = [(scalar.step, scalar.value) for scalar in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def test_tensorboard_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("longtag.loggers.tensorboard.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"logger=tensorboard: .*pip install -e '.\[tensorboard\]'"):
        tensorboard_logger(folder=tmp_path, run_id="1")
