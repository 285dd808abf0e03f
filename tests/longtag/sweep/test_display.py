import json
import re
from pathlib import Path

import pytest

from longtag.sweep.display import Display
from longtag.sweep.record import Job, SweepRecord


@pytest.fixture
def record(tmp_path: Path) -> SweepRecord:
    """Two jobs, the first at its third step."""
    (tmp_path / "0").mkdir()
    (tmp_path / "0/metrics.jsonl").write_text(json.dumps({"step": 2, "train/loss": 0.5}) + "\n")
    return SweepRecord(tmp_path, jobs=[Job(0, ["pattern=window", "seed=0"]), Job(1, ["pattern=random", "seed=0"])])


def end(record: SweepRecord, number: int, **how: object) -> Job:
    vars(record.jobs[number]).update(how)
    return record.jobs[number]


def test_lines_to_a_file_are_plain_and_have_no_control_characters(record, capsys):
    with Display(record, plain_every_seconds=0) as display:
        display.started(record.jobs[0], 90, ["3"])
        display.show(1)
        display.ended(end(record, 0, status="failed", error="CUDA out of memory"))
    printed = capsys.readouterr().out
    assert re.sub(r"\d:\d\d", "time", printed).splitlines() == [
        f"job 0   pattern=window  started on GPU 3, log: {record.folder}/0/output.log",
        "job 0   pattern=window  step 3/90  loss 0.5000  time",
        "job 0   pattern=window  failed after time  CUDA out of memory",
    ]
    assert "\x1b" not in printed


def test_plain_lines_wait_for_their_time(record, capsys):
    with Display(record, plain_every_seconds=3600) as display:
        display.started(record.jobs[0], 90, [])
        display.show(0)
    assert "step" not in capsys.readouterr().out


def test_a_terminal_has_a_live_line_for_each_running_job_and_one_that_stays_for_each_ended(record, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("longtag.sweep.display.LIVE_EVERY_SECONDS", 0)
    with Display(record) as display:
        display.started(record.jobs[0], 90, [])
        display.started(record.jobs[1], 90, [])
        display.show(4)
        shown = capsys.readouterr().out
        display.ended(end(record, 0, status="completed", objective=0.25))
        after = capsys.readouterr().out
    assert "job 0   pattern=window  step 3/90" in shown
    assert "job 1   pattern=random  starting" in shown
    assert "4 waiting" in shown
    assert re.search(r"job 0   pattern=window  completed after 0:00  objective 0.2500", after)
    assert after.count("job 0") == 1
    assert "job 1   pattern=random  starting" in after
