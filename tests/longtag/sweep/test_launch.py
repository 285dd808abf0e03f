"""Batches of jobs, run by a stand-in: what is run, what is skipped, and what is left when jobs fail or are stopped."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hydra.core.utils import JobStatus

from longtag.errors import UsageError
from longtag.folder import take_lock
from longtag.sweep.launch import JobFailed
from longtag.sweep.record import Job, SweepRecord

from .conftest import statuses, written


def starts(folder: Path) -> list[str]:
    return (folder / "starts").read_text().splitlines()


def test_jobs_that_fail_leave_the_others_running_and_say_why(launched, tmp_path, capsys):
    returned = launched(["seed=10"], ["model.num_layers=x"], ["seed=11"], ["seed=12"], ["seed=3"])
    jobs = written(tmp_path / "sweep")
    assert [job["status"] for job in jobs] == ["failed"] * 4 + ["completed"]
    assert [job["error"] for job in jobs] == [
        "RuntimeError: CUDA out of memory",
        "model.num_layers=x: expected an integer",
        "tokens=0: expected 1 or more",
        "killed by SIGKILL; the machine may have run out of memory",
        None,
    ]
    assert [job["objective"] for job in jobs] == [None, None, None, None, 3.0]
    assert (returned[4].status, returned[4].return_value) == (JobStatus.COMPLETED, 3.0)
    with pytest.raises(JobFailed, match="CUDA out of memory"):
        _ = returned[0].return_value
    assert not (tmp_path / "sweep/1").exists()
    printed = capsys.readouterr().out
    assert "job 1 refused: model.num_layers=x: expected an integer" in printed
    assert f"folder={tmp_path}/sweep" in printed
    assert "\x1b[" not in printed


def test_what_a_job_prints_lies_in_its_folder(launched, tmp_path, capfd):
    launched(["seed=10"])
    log = (tmp_path / "sweep/0/output.log").read_text()
    assert log.startswith("$ ")
    assert "RuntimeError: CUDA out of memory" in log
    assert "Traceback" not in capfd.readouterr().out


def test_a_sweep_given_again_runs_only_what_is_not_completed(launched, tmp_path):
    launched(["seed=1"], ["seed=10"], ["seed=2"])
    returned = launched(["seed=2"], ["seed=4"], ["seed=10"], ["seed=1"])
    folder = tmp_path / "sweep"
    assert [(job["number"], job["overrides"][-1]) for job in written(folder)] == [
        (0, "seed=1"),
        (1, "seed=10"),
        (2, "seed=2"),
        (3, "seed=4"),
    ]
    assert [len(starts(folder / name)) for name in "0123"] == [1, 2, 1, 1]
    assert [returned[place].return_value for place in (0, 1, 3)] == [2.0, 4.0, 1.0]


def test_the_same_job_twice_runs_once(launched, tmp_path):
    returned = launched(["seed=1"], ["seed=1"])
    assert [job.return_value for job in returned] == [1.0, 1.0]
    assert len(starts(tmp_path / "sweep/0")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_stops_its_jobs_cleanly_and_goes_on_later(launched, tmp_path, report, number, capsys):
    folder = tmp_path / "sweep"

    def stop() -> None:
        while not (folder / "1/waits").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=stop).start()
    with pytest.raises(SystemExit) as left:
        launched(["seed=1"], ["seed=20"], ["seed=2"])
    assert left.value.code == 128 + number
    assert statuses(folder) == ["completed", "interrupted", "pending"]
    assert (folder / "1/checkpoint").read_text() == "saved"
    assert report == [folder]
    printed = capsys.readouterr().out
    assert "1 completed, 1 interrupted, 1 pending" in printed

    launched(["seed=1"], ["seed=20"], ["seed=2"])
    assert statuses(folder) == ["completed"] * 3
    assert [len(starts(folder / name)) for name in "012"] == [1, 2, 1]


def test_a_sweep_that_was_killed_goes_on(launched, tmp_path):
    folder = tmp_path / "sweep"
    launched(["seed=1"], ["seed=2"])
    record = SweepRecord.read(folder)
    record.jobs[0].status = record.jobs[1].status = "running"
    (folder / "1/summary.json").unlink()
    record.write()
    launched(["seed=1"], ["seed=2"])
    assert statuses(folder) == ["completed"] * 2
    assert [len(starts(folder / name)) for name in "01"] == [1, 2]


def test_a_job_whose_last_process_still_saves_is_waited_for(launched, tmp_path):
    folder = tmp_path / "sweep/0"
    folder.mkdir(parents=True)
    lock = take_lock(folder)
    assert lock is not None
    released: list[float] = []
    threading.Timer(0.6, lambda: (released.append(time.time()), lock.close())).start()
    launched(["seed=1"])
    assert float(starts(folder)[0].split()[0]) >= released[0]


def span(folder: Path) -> tuple[float, float]:
    """When a job started and when it ended."""
    return float(starts(folder)[0].split()[0]), float((folder / "ended").read_text())


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def test_each_job_has_a_gpu_of_its_own(launched, tmp_path, monkeypatch):
    monkeypatch.setattr("longtag.sweep.launch.visible_gpus", lambda: ["3", "5"])
    launched(*([f"seed={seed}", "trainer.accelerator=auto"] for seed in range(4)))
    spans: dict[str, list[tuple[float, float]]] = {}
    for name in "0123":
        folder = tmp_path / "sweep" / name
        spans.setdefault(starts(folder)[0].split()[1], []).append(span(folder))
    assert sorted(spans) == ["3", "5"]
    assert not any(overlap(*jobs) for jobs in spans.values())
    assert overlap(spans["3"][0], spans["5"][0])


@pytest.mark.parametrize("jobs_at_once", [None, 2])
def test_jobs_share_a_cpu_only_if_asked_to(launched, tmp_path, jobs_at_once):
    launched(["seed=1"], ["seed=2"], jobs_at_once=jobs_at_once)
    assert overlap(span(tmp_path / "sweep/0"), span(tmp_path / "sweep/1")) is (jobs_at_once == 2)


def test_a_sweep_of_which_nothing_can_run_leaves_nothing_behind(launched, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/multirun.yaml").touch()
    with pytest.raises(UsageError) as caught:
        launched(["model.norm=x", "seed=1"], ["model.norm=x", "seed=2"], ["patern=window"])
    assert str(caught.value).splitlines() == [
        "model.norm=x: expected one of post, pre",
        "patern: train.yaml has no such option; did you mean pattern?",
    ]
    assert not (tmp_path / "sweep").exists()


def test_a_folder_that_another_sweep_uses_is_refused(launched, tmp_path):
    record = SweepRecord(tmp_path / "sweep", jobs=[Job(0, ["seed=1"])])
    record.write()
    with take_lock(record.folder), pytest.raises(UsageError, match="another sweep is using this folder"):  # type: ignore
        launched(["seed=1"])
    assert statuses(record.folder) == ["pending"]


def test_jobs_at_once_must_be_a_positive_number(launched, tmp_path):
    with pytest.raises(UsageError, match=r"hydra\.launcher\.jobs_at_once=0: expected 1 or more, or null"):
        launched(["seed=1"], jobs_at_once=0)
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_refused_in_the_folder_of_a_run_leaves_it_as_it_was(launched, tmp_path):
    (tmp_path / "sweep").mkdir()
    # Hydra or the sweeper writes this one before the launcher is asked.
    for name in ("run_id", "multirun.yaml"):
        (tmp_path / "sweep" / name).write_text("abcd")
    with pytest.raises(UsageError, match="a single run lies there"):
        launched(["seed=1"])
    assert [path.name for path in (tmp_path / "sweep").iterdir()] == ["run_id"]
