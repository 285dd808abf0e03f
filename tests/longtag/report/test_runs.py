"""Runs are read from their folders, also while they run and after a crash."""

import fcntl
import json

import numpy as np
import pytest

from longtag.errors import UsageError
from longtag.report.curves import MOST_POINTS, curve
from longtag.report.runs import read
from longtag.report.write import write_report

from . import fake


def test_a_run_is_read_with_its_figures(tmp_path):
    fake.write_run(tmp_path / "mine", pattern="window", seed=3, overrides=["memory=lean"])
    (run,) = read([tmp_path / "mine"])
    assert (run.name, run.status, run.option("pattern"), run.option("memory")) == (
        "mine",
        "completed",
        "window",
        "lean",
    )
    assert run.steps == 300
    assert run.peak_memory == pytest.approx(3.1, rel=0.02)
    # The first step, which is far slower, does not count.
    assert run.tokens_per_second == pytest.approx(910_000, rel=0.01)
    losses = run.series["train/loss"]
    assert (losses.steps[0], losses.steps[-1], len(losses.values)) == (1, 300, 300)
    assert run.best("val/accuracy") == run.series["val/accuracy"].values.max()


def test_a_line_that_was_cut_off_and_a_loss_that_is_no_number_do_no_harm(tmp_path):
    folder = fake.write_run(tmp_path / "0", steps=4)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines[0]["train/loss"] = None
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 4, "train/lo')
    (run,) = read([folder])
    assert np.isnan(run.series["train/loss"].values[0])
    found = curve([run], "train/loss")
    assert found is not None
    assert found.steps.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"a'),
        ("summary.json", "[1]"),
        ("metrics.jsonl", "[1]"),
        ("figures/evaluation.json", "[1]"),
        ("figures/evaluation.json", "{}"),
        (".hydra/config.yaml", "a: ["),
        (".hydra/hydra.yaml", "[1]"),
    ],
)
def test_a_part_that_is_damaged_is_a_part_that_is_missing(tmp_path, name, content):
    folder = fake.write_run(tmp_path / "0", steps=4)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    page = write_report(folder)
    assert "<html" in page.read_text()


def test_a_run_without_a_summary_runs_while_its_folder_is_locked(tmp_path):
    folder = fake.write_run(tmp_path / "0", status=None)
    assert read([folder])[0].status == "unfinished"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read([folder])[0].status == "running"
    assert read([folder])[0].status == "unfinished"


def test_jobs_without_a_folder_are_part_of_a_sweep_with_their_error(tmp_path):
    fake.write_run(tmp_path / "0")
    error = "out of memory"
    fake.write_jobs(
        tmp_path,
        [fake.job(0, ["pattern=window"]), fake.job(1, ["pattern=dense"], "failed", error), fake.job(2, [], "pending")],
    )
    runs = read([tmp_path])
    assert [(run.name, run.status, run.error) for run in runs] == [
        ("0", "completed", None),
        ("1", "failed", error),
        ("2", "pending", None),
    ]
    assert runs[1].option("pattern") == "dense"


def test_jobs_are_read_in_the_order_of_their_numbers_where_no_sweep_json_tells(tmp_path):
    for number in (10, 2, 1):
        fake.write_run(tmp_path / str(number), steps=1)
    assert [run.name for run in read([tmp_path])] == ["1", "2", "10"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run in this folder; expected one with metrics\.jsonl"):
        read([tmp_path])
    with pytest.raises(UsageError, match="no such folder"):
        read([tmp_path / "nowhere"])


def test_curves_of_seeds_become_one_with_a_band(sweep):
    runs = read([sweep])[:2]
    found = curve(runs, "val/accuracy")
    assert found is not None
    values = np.stack([run.series["val/accuracy"].values for run in runs])
    np.testing.assert_allclose(found.mean, values.mean(0))
    np.testing.assert_allclose(found.low, values.min(0))
    np.testing.assert_allclose(found.high, values.max(0))


def test_a_long_curve_is_thinned_by_means_or_by_the_highest(tmp_path):
    (run,) = read([fake.write_run(tmp_path / "0", steps=1000)])
    losses, memory = run.series["train/loss"].values, run.series["memory/peak_allocated_gib"].values
    mean, highest = curve([run], "train/loss"), curve([run], "memory/peak_allocated_gib", of_cell="max")
    assert mean is not None
    assert highest is not None
    assert len(mean.steps) <= MOST_POINTS
    assert mean.mean[0] == pytest.approx(losses[:9].mean())
    assert highest.mean[0] == memory[:9].max()
    assert highest.mean.max() == run.peak_memory
