"""What arrives at a W&B server, of runs that send at once and of those that are sent later."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from longtag.report.end_of_sweep import report_sweep
from longtag.sweep.record import Job, SweepRecord

from ..conftest import run_in_folder
from .metrics_file import by_step
from .offline import offline_files
from .wandb_server import ReceivedRun, WandbServer, wandb_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """The server that W&B knows, with credentials for it; at the end it must have understood all that it was sent."""
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
        monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
        monkeypatch.delenv("WANDB_MODE", raising=False)
        wandb.teardown()  # else it goes on with the address that it was started with
        yield server
        wandb.teardown()
    assert server.unknown == []


def only_run(server: WandbServer, folder: Path) -> ReceivedRun:
    assert list(server.runs) == [(folder / "run_id").read_text()]
    return server.runs[(folder / "run_id").read_text()]


def assert_every_step_arrived(run: ReceivedRun, folder: Path) -> None:
    """One row for each optimizer step, with all that metrics.jsonl has of it; what was tested is in the last one."""
    steps = [step for step in by_step(folder) if "train/loss" in step]
    assert [row["_step"] for row in run.history] == [step["step"] for step in steps] == list(range(len(steps)))
    for row, step in zip(run.history, steps, strict=True):
        shared = {name: value for name, value in step.items() if name[:5] not in ("step", "time", "test/")}
        assert {name: row.get(name) for name in shared} == pytest.approx(shared)


def axis(run: ReceivedRun, name: str) -> str | None:
    """What W&B draws a figure over; None for the step."""
    metrics = run.config["_wandb"]["m"]
    (place,) = (metric.get("5") for metric in metrics if metric.get("1") == name)
    return None if place is None else metrics[place - 1]["1"]


def send(folder: Path) -> None:
    """What the docs say for a run that was not sent at once."""
    command = [sys.executable, "-m", "wandb", "sync", str(folder / "wandb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stderr


def test_a_run_arrives_with_every_step_its_axes_and_its_summary(server, tiny, tmp_path):
    run_in_folder(tiny("logger=wandb"))
    run, folder = only_run(server, tmp_path / "run"), tmp_path / "run"
    assert_every_step_arrived(run, folder)
    assert axis(run, "train/loss") == axis(run, "val/f1_macro") == "throughput/tokens_seen"
    kept = json.loads((folder / "summary.json").read_text())
    assert run.summary["status"] == "completed"
    for name in ("train/loss", "val/f1_macro", "test/accuracy"):
        assert run.summary[name] == pytest.approx(kept[name])
        assert run.summary[f"best/{name}"] == pytest.approx(kept["best"][name])
    assert run.config["tokens"] == 64
    assert run.exit_codes == [0]


def test_the_same_folder_goes_on_in_the_same_run_and_no_row_takes_the_place_of_another(server, tiny, tmp_path):
    run_in_folder(tiny("logger=wandb"))
    run_in_folder(tiny("logger=wandb", "trainer.max_steps=6"))
    run = only_run(server, tmp_path / "run")
    assert_every_step_arrived(run, tmp_path / "run")
    assert [step for step, row in enumerate(run.history) if "test/loss" in row] == [3, 5]
    assert run.exit_codes == [0, 0]


def test_what_was_not_sent_at_once_is_sent_as_one_run_with_all_rows_of_all_starts(server, tiny, tmp_path):
    folder = tmp_path / "run"
    run_in_folder(tiny("logger=wandb", "logger.wandb.mode=offline"))
    run_in_folder(tiny("logger=wandb", "logger.wandb.mode=offline", "trainer.max_steps=6"))
    offline_files(folder, 2)
    assert server.runs == {}
    send(folder)
    run = only_run(server, folder)
    assert_every_step_arrived(run, folder)
    assert run.summary["status"] == "completed"


def test_an_offline_run_that_was_killed_and_goes_on_from_an_earlier_step_is_sent_whole(server, tiny, tmp_path):
    folder, offline = tmp_path / "run", ("logger=wandb", "logger.wandb.mode=offline", "test=false")
    run_in_folder(tiny(*offline, "trainer.max_steps=2"))
    checkpoint = (folder / "checkpoints/last.ckpt").read_bytes()
    run_in_folder(tiny(*offline))
    # As if it had been killed before it saved, while W&B was writing.
    (folder / "checkpoints/last.ckpt").write_bytes(checkpoint)
    killed = offline_files(folder, 2)[1]
    killed.write_bytes(killed.read_bytes()[:-3])
    run_in_folder(tiny(*offline, "trainer.max_steps=6"))
    send(folder)
    assert_every_step_arrived(only_run(server, folder), folder)


def test_the_runs_of_a_sweep_and_its_report_share_a_group(server, tiny, tmp_path):
    record = SweepRecord(tmp_path / "mine", jobs=[Job(0, ["seed=0"]), Job(1, ["seed=1"])])
    record.write()
    for job in record.jobs:
        folder = record.folder_of(job)
        options = ("logger=wandb", "trainer.max_steps=2", "callbacks=none", *job.overrides)
        run_in_folder(tiny(*options, f"hydra.runtime.output_dir={folder}"))
        job.status = "completed"
    record.write()
    report_sweep(record.folder)
    sent = [run.attributes for run in server.runs.values()]
    assert [run["groupName"] for run in sent] == ["mine"] * 3
    assert [run["displayName"] for run in sent] == ["mine/0", "mine/1", "mine"]
    assert [run.get("tags") for run in sent[:2]] == [["synthetic", "window", "fast", "64 tokens"]] * 2
    assert sent[2]["jobType"] == "report"
    report_sweep(record.folder)  # as when the sweep has gone on
    *_, report = server.runs.values()
    assert len(server.runs) == 3
    assert [row["_step"] for row in report.history] == [0, 1]
    assert any(name.startswith("media/images/report/") for name in report.files)


def test_a_run_of_an_agent_keeps_the_id_that_the_agent_gave_it(server, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "search")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    run_in_folder(tiny("logger=wandb"))
    monkeypatch.delenv("WANDB_SWEEP_ID")
    monkeypatch.delenv("WANDB_RUN_ID")
    wandb.teardown()
    run_in_folder(tiny("logger=wandb", "trainer.max_steps=6"))
    assert list(server.runs) == ["given"]
    assert server.runs["given"].attributes["sweep"] == "search"
    assert_every_step_arrived(only_run(server, tmp_path / "run"), tmp_path / "run")
