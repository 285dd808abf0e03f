import json
from pathlib import Path

import pytest

from longtag.sweep.outcome import LOG, outcome, outcome_on_disk

TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    f()
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "b.py", line 2, in f
    g()
    ^^^
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB
wandb: done
"""


@pytest.mark.parametrize(
    ("exit_code", "log", "status", "error"),
    [
        (1, TRACEBACK, "failed", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        (2, "step 1\nerror: tokens=0: a\nerror: seed=x: b\n", "failed", "tokens=0: a; seed=x: b"),
        (3, "last words\n", "failed", "last words"),
        (3, "", "failed", "exit code 3"),
        (-9, "step 1\n", "failed", "killed by SIGKILL; the machine may have run out of memory"),
        (-11, "", "failed", "killed by SIGSEGV"),
        (130, "stopped\n", "interrupted", None),
        (143, "stopped\n", "interrupted", None),
        (-2, "", "interrupted", None),
    ],
)
def test_the_end_of_a_process_is_named(tmp_path, exit_code, log, status, error):
    (tmp_path / LOG).write_text(log)
    ended = outcome(tmp_path, exit_code)
    assert (ended.status, ended.error, ended.objective) == (status, error, None)


def test_only_the_output_of_the_last_try_counts(tmp_path):
    (tmp_path / LOG).write_text("error: old\n")
    start = (tmp_path / LOG).stat().st_size
    with (tmp_path / LOG).open("a") as log:
        log.write("new\n")
    assert outcome(tmp_path, 2, start).error == "new"


def summary(folder: Path, **content: object) -> None:
    (folder / "summary.json").write_text(json.dumps(content))


def test_the_objective_is_the_best_of_what_is_monitored(tmp_path):
    summary(tmp_path, status="completed", monitor="val/loss", best={"val/loss": 0.25, "val/f1_macro": 0.9})
    assert outcome(tmp_path, 0).objective == 0.25
    assert outcome_on_disk(tmp_path).objective == 0.25


def test_a_job_without_a_process_is_judged_by_its_summary(tmp_path):
    assert outcome_on_disk(tmp_path).status == "interrupted"
    summary(tmp_path, status="failed", error="ValueError: x")
    assert (outcome_on_disk(tmp_path).status, outcome_on_disk(tmp_path).error) == ("failed", "ValueError: x")
