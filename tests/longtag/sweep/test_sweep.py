"""One sweep from the command line to the table: real runs, one of which fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import CONF, TINY
from ..loggers.offline import offline_files, records
from .conftest import written


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CONF.parent / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A sweep over three numbers of classes: enough, too few for the data, and no number."""
    cwd = tmp_path_factory.mktemp("swept")
    logged = [item for item in TINY if item != "logger=none"] + ["logger=wandb", "logger.wandb.mode=offline"]
    done = train("-m", "classes=5,3,x", *logged, "folder=outputs/mine", cwd=cwd)
    return cwd / "outputs/mine", done


def test_what_can_be_run_is_run_and_the_rest_is_listed(swept):
    folder, done = swept
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    jobs = written(folder)
    assert [job["status"] for job in jobs] == ["completed", "failed", "failed"]
    assert [job["error"] for job in jobs] == [
        None,
        "classes=3: the data has 5 labels; give 5 or more, or null",
        "classes=x: expected an integer or null",
    ]
    assert "job 1 failed: classes=3: the data has 5 labels" in done.stdout
    assert "1 completed, 2 failed: outputs/mine" in done.stdout


def test_the_objective_is_the_best_of_what_is_monitored(swept):
    folder, _ = swept
    summary = json.loads((folder / "0/summary.json").read_text())
    assert written(folder)[0]["objective"] == summary["best"]["val/f1_macro"] > 0


def test_the_comparison_joins_the_runs_in_wandb(swept):
    folder, done = swept
    assert "report for W&B: wandb sync outputs/mine/wandb" in done.stdout
    ours, theirs = (
        next(record.run for record in records(offline_files(place, 1)[0]) if record.WhichOneof("record_type") == "run")
        for place in (folder, folder / "0")
    )
    assert (ours.run_group, ours.display_name, ours.job_type) == ("mine", "mine", "report")
    assert (theirs.run_group, theirs.project) == (ours.run_group, ours.project)
    assert theirs.run_id != ours.run_id
