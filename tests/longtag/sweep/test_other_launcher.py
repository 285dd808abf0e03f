"""Launchers that keep no record: what is handed to them, and what is written down of what comes back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from longtag.errors import UsageError
from longtag.folder import take_lock
from longtag.sweep.lost_jobs import LostJob
from longtag.sweep.other_launcher import launch_recorded

from ..conftest import TINY
from .conftest import statuses, written


class Scripted(Launcher):
    """Hands back what it was made with for each job, or raises it; keeps what it was handed."""

    def __init__(self, *ends: Any, raises: Exception | None = None) -> None:
        self.ends = ends
        self.raises = raises
        self.handed_over: list[list[str]] = []

    def setup(self, **kwargs: Any) -> None:
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        self.handed_over = [list(overrides) for overrides in job_overrides]
        if self.raises is not None:
            raise self.raises
        returns = []
        for end in self.ends:
            failed = isinstance(end, Exception)
            returns.append(JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED, _return_value=end))
        return returns

    @property
    def folders(self) -> list[str]:
        return [overrides[-1].removeprefix("hydra.sweep.subdir=") for overrides in self.handed_over]


@pytest.fixture
def recorded(sweep: tuple[HydraContext, DictConfig]):
    """A function that runs a batch of jobs, given by what varies, through a launcher."""
    context, config = sweep

    def launch(launcher: Scripted, *varied: str) -> Scripted:
        jobs = [[*TINY, f"folder={config.folder}", item] for item in varied]
        launch_recorded(launcher, context.config_loader, config, jobs)
        return launcher

    return launch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep"


def put_summary(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "summary.json").write_text(text)


def test_what_comes_back_is_written_down_batch_by_batch(recorded, folder):
    recorded(Scripted(0.5, UsageError("seed=1: no")), "seed=0", "seed=1")
    recorded(Scripted(RuntimeError("broken")), "seed=2")
    assert [(job["number"], job["overrides"][-1], job["status"], job["error"]) for job in written(folder)] == [
        (0, "seed=0", "completed", None),
        (1, "seed=1", "failed", "seed=1: no"),
        (2, "seed=2", "failed", "RuntimeError: broken"),
    ]
    assert written(folder)[0]["objective"] == 0.5


def test_a_job_whose_options_cannot_be_used_is_not_handed_over(recorded, folder, capsys):
    launcher = recorded(Scripted(0.5, 0.25), "pattern=nonsense", "seed=1", "seed=2")
    assert launcher.folders == ["1", "2"]
    assert statuses(folder) == ["failed", "completed", "completed"]
    assert "job 0 refused: pattern=nonsense: no such pattern" in capsys.readouterr().out


def test_given_again_only_what_is_not_completed_is_handed_over_under_its_number(recorded, folder):
    recorded(Scripted(0.5, RuntimeError("broken"), 0.25), "seed=0", "seed=1", "seed=2")
    launcher = recorded(Scripted(0.125, 0.75), "seed=3", "seed=2", "seed=1", "seed=0")
    assert launcher.folders == ["3", "1"]
    assert [job["objective"] for job in written(folder)] == [0.5, 0.75, 0.25, 0.125]
    assert recorded(Scripted(), "seed=0").handed_over == []


def test_what_ended_while_nobody_waited_is_found_by_its_folder(recorded, folder):
    with pytest.raises(KeyboardInterrupt):
        recorded(Scripted(raises=KeyboardInterrupt()), "seed=0", "seed=1")  # pyright: ignore[reportArgumentType]
    assert statuses(folder) == ["running", "running"]
    put_summary(folder / "0", '{"status": "completed", "monitor": "val/loss", "best": {"val/loss": 0.25}}')
    assert recorded(Scripted(0.5), "seed=0", "seed=1").folders == ["1"]
    assert [job["objective"] for job in written(folder)] == [0.25, 0.5]


def test_a_launcher_that_takes_no_job_says_why_and_leaves_nothing(recorded, folder):
    folder.mkdir()
    (folder / "multirun.yaml").touch()
    (folder / ".submitit").mkdir()
    (folder / ".submitit/job.sh").touch()
    with pytest.raises(UsageError, match=r"Scripted took none of the jobs: no such partition; .*gpus_per_node=0"):
        recorded(Scripted(raises=RuntimeError("no such partition")), "seed=0", "pattern=nonsense")
    assert not folder.exists()


def test_a_launcher_that_gives_up_loses_no_finished_job(recorded, folder, capsys):
    recorded(Scripted(RuntimeError("broken"), RuntimeError("broken")), "seed=0", "seed=1")
    put_summary(folder / "0", '{"status": "completed", "monitor": "val/loss", "best": {"val/loss": 0.25}}')
    recorded(Scripted(raises=RuntimeError("worker died")), "seed=0", "seed=1")
    assert [(job["status"], job["objective"]) for job in written(folder)] == [
        ("completed", 0.25),
        ("interrupted", None),
    ]
    assert "worker died" in capsys.readouterr().err


def test_a_lost_job_that_has_saved_was_interrupted_and_any_other_failed(recorded, folder):
    folder.mkdir()
    put_summary(folder / "0", '{"status": "interrupted"}')
    recorded(Scripted(LostJob("state CANCELLED"), LostJob("state OUT_OF_MEMORY")), "seed=0", "seed=1")
    assert [(job["status"], job["error"]) for job in written(folder)] == [
        ("interrupted", None),
        ("failed", "state OUT_OF_MEMORY"),
    ]


def test_two_sweeps_cannot_use_one_folder(recorded, folder):
    folder.mkdir()
    lock = take_lock(folder)
    assert lock is not None
    with lock, pytest.raises(UsageError, match="another sweep is using this folder"):
        recorded(Scripted(0.5), "seed=0")
