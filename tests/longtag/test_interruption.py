"""Ctrl-C and its like: the last checkpoint is there, the exit code says what happened, and the run goes on from it."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from .conftest import CONF, TINY, run_in_folder

UNDER_A_QUEUE = """
import runpy, signal, sys
def queue_again(number, frame):
    print("queued again")
    sys.exit(7)
signal.signal(signal.SIGUSR2, queue_again)
runpy.run_path("train.py", run_name="__main__")
"""
"""Starts train.py as submitit does: with a handler for the warning that queues the job again and ends the process."""

IN_SLURM = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


AS_A_TASK = """
import os, runpy
os.environ["SLURM_TASK_PID"] = str(os.getpid())
runpy.run_path("train.py", run_name="__main__")
"""
"""Starts train.py as srun does: the process knows that it is the one that Slurm started."""


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    """A run without end must not outlive a test that fails."""
    yield
    for process in STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    STARTED.clear()


def start(*arguments: str, script: Sequence[str] = ("train.py",), **environment: str) -> subprocess.Popen[str]:
    # With W&B in this process, one that it starts would share its process instead of having one.
    inherited = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    process = subprocess.Popen(
        [sys.executable, *script, *arguments],
        cwd=CONF.parent,
        env=inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # What a shell runs in the background ignores Ctrl-C, and so would whatever is started from there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )
    STARTED.append(process)
    return process


def start_tiny(folder: Path, *overrides: str, **options: Any) -> subprocess.Popen[str]:
    return start(*TINY, "callbacks=none", f"folder={folder}", *overrides, **options)


def start_endless(folder: Path, *overrides: str, **options: Any) -> subprocess.Popen[str]:
    """A run that has done its first steps."""
    process = start_tiny(folder, "trainer.max_steps=100000", "trainer.val_check_interval=100000", *overrides, **options)
    wait_for(lambda: has_lines(folder / "metrics.jsonl"), process)
    return process


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def has_lines(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_an_interrupted_run_saves_and_can_go_on(tmp_path, number, code):
    folder = tmp_path / "run"
    process = start_endless(folder)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert not (folder / ".lock").exists()

    steps = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert steps == len((folder / "metrics.jsonl").read_text().splitlines())

    goes_on = start_tiny(folder, f"trainer.max_steps={steps + 2}", "test=false")
    output, _ = goes_on.communicate(timeout=60)
    assert goes_on.returncode == 0, output
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-2])
    assert last["step"] == steps + 1


def test_ctrl_c_that_reaches_the_workers_too_lets_the_running_step_end(tmp_path):
    folder = tmp_path / "run"
    process = start_endless(folder, "crops.num_workers=2")
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert (folder / "checkpoints/last.ckpt").is_file()


def test_a_run_that_its_queue_warns_saves_before_it_is_queued_again(tmp_path):
    folder = tmp_path / "run"
    process = start_endless(folder, script=("-c", UNDER_A_QUEUE))
    process.send_signal(signal.SIGUSR2)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 7, output
    assert output.endswith("stopped by SIGUSR2; the last checkpoint is saved\nqueued again\n")
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert (folder / "checkpoints/last.ckpt").is_file()


def test_sigterm_to_what_a_job_of_slurm_has_started_ends_it(tmp_path):
    process = start_endless(tmp_path / "run", SLURM_TASK_PID=str(os.getpid()), **IN_SLURM)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output


def test_sigterm_in_a_job_of_slurm_saves_and_the_run_goes_on_until_it_is_ended(tmp_path):
    folder = tmp_path / "run"
    process = start_endless(folder, script=("-c", AS_A_TASK), **IN_SLURM)
    process.send_signal(signal.SIGTERM)
    wait_for((folder / "checkpoints/last.ckpt").is_file, process)
    saved_at = (folder / "metrics.jsonl").stat().st_size
    wait_for(lambda: (folder / "metrics.jsonl").stat().st_size > saved_at, process)
    process.kill()
    process.communicate()


def test_a_signal_to_all_processes_of_a_run_ends_that_of_wandb_and_not_the_run_before_it_has_saved(tmp_path):
    folder = tmp_path / "run"
    process = start_endless(folder, "logger=wandb", "logger.wandb.mode=offline")
    wait_for(lambda: children(process, "wandb-core") != [], process)
    for child in children(process, "wandb-core"):
        os.kill(child, signal.SIGTERM)
    end_of_log = (folder / "metrics.jsonl").stat().st_size
    wait_for(lambda: (folder / "metrics.jsonl").stat().st_size > end_of_log + 5000, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert "W&B's own process has ended" in output
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert (folder / "checkpoints/last.ckpt").is_file()


def children(process: subprocess.Popen[str], name: str) -> list[int]:
    """Processes of this name that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            number, rest = path.read_text().split(" (", 1)
            command, _, fields = rest.rpartition(") ")
            if command == name and int(fields.split()[1]) == process.pid:
                found.append(int(number))
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_interrupted_before_its_first_step_leaves_nothing(tmp_path, number, code):
    # A pipe that nobody writes to: the run waits in the middle of reading its data.
    os.mkfifo(tmp_path / "pipe.fasta")
    genome = (f"data.fasta={tmp_path}/pipe.fasta", f"data.gff={tmp_path}/genome.gff3")
    process = start(*genome, f"folder={tmp_path}/outputs/run")
    wait_for(lambda: is_being_read(tmp_path / "pipe.fasta"), process)
    assert (tmp_path / "outputs" / "run").is_dir()
    # Python sees a signal that comes just before a system call only when that returns, which this one never does.
    time.sleep(0.5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert not (tmp_path / "outputs" / "run").exists()


def is_being_read(pipe: Path) -> bool:
    try:
        os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)  # stays open, so that the reader goes on waiting
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


class CtrlC(Callback):
    """Presses Ctrl-C once, at the first call of a hook from a step on."""

    def __init__(self, *, hook: str, step: int) -> None:
        self.pressed = False

        def press(trainer: Any, *others: Any) -> None:
            if trainer.global_step >= step and not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

        setattr(self, hook, press)


def pressing(hook: str, step: int) -> list[str]:
    target = "+callbacks.ctrl_c={_target_: tests.longtag.test_interruption.CtrlC}"
    return [target, f"+callbacks.ctrl_c.hook={hook}", f"+callbacks.ctrl_c.step={step}"]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("hook", "step"), [("on_train_batch_start", 3), ("on_validation_batch_end", 4)])
def test_a_validation_that_is_due_or_runs_is_finished_before_a_run_leaves(tiny, tmp_path, hook, step):
    options = ("callbacks=none", "trainer.max_steps=4", "trainer.val_check_interval=4")
    with pytest.raises(SystemExit) as left:
        run_in_folder(tiny(*options, *pressing(hook, step)))
    assert left.value.code == 130
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows if "val/loss" in row] == [3]
    assert not any("test/loss" in row for row in rows)
    assert (tmp_path / "run/checkpoints/best.ckpt").exists()
    run_in_folder(tiny(*options))
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "completed"


def test_the_batches_of_one_step_stay_together(tiny, tmp_path):
    options = ("callbacks=none", "trainer.accumulate_grad_batches=2", "trainer.max_steps=6", "model.dropout=0.2")
    options = (*options, "trainer.val_check_interval=4", "test=false")
    run_in_folder(tiny(*options, f"hydra.runtime.output_dir={tmp_path}/straight"))
    with pytest.raises(SystemExit):
        run_in_folder(tiny(*options, *pressing("on_train_batch_start", 3)))
    run_in_folder(tiny(*options))
    straight, resumed = (
        [(row["step"], row["train/loss"]) for row in rows_of(tmp_path / name) if "train/loss" in row]
        for name in ("straight", "run")
    )
    assert resumed == straight


def test_the_summary_knows_the_step_after_which_a_run_left(tiny, tmp_path):
    options = ("trainer.max_steps=4", "trainer.val_check_interval=4", "test=false")
    with pytest.raises(SystemExit):
        run_in_folder(tiny(*options, *pressing("on_train_batch_start", 2)))
    run_in_folder(tiny(*options))
    rates = [row["optim/learning_rate"] for row in rows_of(tmp_path / "run") if "optim/learning_rate" in row]
    assert rates.index(max(rates)) == 2
    assert json.loads((tmp_path / "run/summary.json").read_text())["best"]["optim/learning_rate"] == max(rates)
