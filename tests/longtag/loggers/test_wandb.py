"""The offline file of W&B is read back with W&B's own messages: what it holds is what metrics.jsonl holds."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from longtag.errors import UsageError
from longtag.loggers.wandb import is_logged_in, wandb_logger

from ..conftest import run_in_folder
from .metrics_file import by_step
from .offline import history, offline_files, records, summary


@pytest.fixture
def logged_out(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return tmp_path / "netrc"


def test_the_offline_run_holds_every_metric_and_a_resumed_run_goes_on_in_it(tiny, tmp_path, logged_out):
    run_in_folder(tiny("logger=wandb", "test=false"))
    run_in_folder(tiny("logger=wandb", "test=false", "trainer.max_steps=6"))
    folder = tmp_path / "run"
    rows, steps = history(folder, starts=2), by_step(folder)
    assert [row["_step"] for row in rows] == [row["trainer/global_step"] for row in rows] == list(range(6))
    for row, step in zip(rows, steps, strict=True):
        shared = {name: value for name, value in step.items() if name not in ("step", "time")}
        assert {name: row[name] for name in shared} == pytest.approx(shared)
    ids = {path.stem for path in offline_files(folder, 2)}
    assert ids == {"run-" + (folder / "run_id").read_text()}


def test_two_runs_of_one_process_have_nothing_in_common(tmp_path):
    wandb_logger(folder=tmp_path / "a", run_id="a", group="one", mode="offline").experiment.finish()
    second = wandb_logger(folder=tmp_path / "b", run_id="b", mode="offline").experiment
    second.finish()
    assert second.group == ""


def test_a_run_of_a_sweep_joins_its_group_and_carries_tags_and_facts(tiny, tmp_path, logged_out):
    (tmp_path / "sweep.json").touch()
    run_in_folder(tiny("logger=wandb", "trainer.max_steps=1", "test=false", "callbacks=none"))
    (path,) = offline_files(tmp_path / "run", 1)
    kept = {record.WhichOneof("record_type"): record for record in records(path)}
    assert kept["run"].run.run_group == tmp_path.name
    assert kept["run"].run.display_name == f"{tmp_path.name}/run"
    assert list(kept["run"].run.tags) == ["synthetic", "window", "fast", "64 tokens"]
    updates = [record.config.update for record in records(path) if record.WhichOneof("record_type") == "config"]
    config = {item.key: json.loads(item.value_json) for update in updates for item in update}
    assert config["tokens"] == 64
    assert {"commit", "command", "device", "torch"} <= set(config["facts"])


def test_an_offline_run_holds_all_that_is_sent_later(tiny, tmp_path, logged_out):
    run_in_folder(tiny("logger=wandb"))
    (path,) = offline_files(tmp_path / "run", 1)
    found = {kind: [] for kind in ("metric", "exit")}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind in found:
            found[kind].append(getattr(record, kind))
    assert found["exit"][-1].exit_code == 0
    axes = {metric.name: metric.step_metric for metric in found["metric"]}
    assert axes["train/loss"] == axes["val/loss"] == axes["val/f1/class 0"] == "throughput/tokens_seen"
    assert "memory/peak_rss_gib" not in axes  # over the step, like all that has no axis of its own
    theirs = summary(path)
    ours = json.loads((tmp_path / "run/summary.json").read_text())
    assert theirs["status"] == "completed"
    for name in ("val/loss", "val/f1_macro", "test/accuracy", "train/loss"):
        assert theirs[name] == pytest.approx(ours[name])
        assert theirs[f"best/{name}"] == pytest.approx(ours["best"][name])
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(tmp_path / "run/wandb")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Would sync 1 run(s)" in done.stdout + done.stderr


def test_without_a_count_of_tokens_everything_is_drawn_over_the_step(tiny, tmp_path, logged_out):
    run_in_folder(tiny("logger=wandb", "callbacks=none", "test=false"))
    (path,) = offline_files(tmp_path / "run", 1)
    named = [record.metric.name for record in records(path) if record.WhichOneof("record_type") == "metric"]
    assert "train/loss" not in named


def test_what_fails_in_the_thread_reaches_the_run(tmp_path, monkeypatch):
    logger = wandb_logger(folder=tmp_path, run_id="1", mode="offline")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(logger, "_send", fail)
    logger.log_metrics({"a": 1.0}, step=0)
    with pytest.raises(OSError, match="no space"):
        logger.finalize("success")


def test_a_row_waits_for_half_of_a_step_in_the_thread(tmp_path, monkeypatch):
    logger = wandb_logger(folder=tmp_path, run_id="abc", mode="offline")
    sent = []
    run = SimpleNamespace(log=lambda row, step: sent.append((step, time.perf_counter())), finish=lambda *args: None)
    monkeypatch.setattr(type(logger), "experiment", run)
    logged = []
    for step in range(3):
        logged.append(time.perf_counter())
        logger.log_metrics({"train/loss": 1.0}, step)
        time.sleep(0.2)
    assert [step for step, _ in sent] == [0, 1, 2]
    waited = [there - given for (_, there), given in zip(sent, logged, strict=True)]
    assert waited[0] < 0.1 <= min(waited[1:])


def test_online_without_credentials_is_refused_where_nobody_can_be_asked(logged_out, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(UsageError, match=r"mode=online: .*wandb login.*mode=offline"):
        wandb_logger(folder=tmp_path, run_id="abc", mode="online")
    assert list(tmp_path.iterdir()) == []


def test_only_credentials_make_it_log_in(logged_out, monkeypatch):
    assert not is_logged_in()
    logged_out.write_text("machine api.wandb.ai login user password 0123456789\n")
    assert is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not is_logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    assert is_logged_in()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not is_logged_in()
