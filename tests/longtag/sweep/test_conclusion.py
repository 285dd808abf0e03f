import json
import sys

import pytest
from omegaconf import OmegaConf

from longtag.sweep.callback import SweepEnd
from longtag.sweep.conclusion import conclude
from longtag.sweep.record import Job, SweepRecord

from .conftest import written


def completed_job(record: SweepRecord) -> None:
    record.jobs.append(Job(0, ["pattern=window", "tokens=64"], "completed", None, 0.5))
    folder = record.folder / "0"
    folder.mkdir(parents=True)
    figures = {"memory/peak_rss_gib": 1.25, "throughput/tokens_per_second": 12345.0}
    (folder / "summary.json").write_text(json.dumps({"status": "completed"} | figures))


def test_the_table_has_what_varied_how_it_ended_and_what_it_reached(tmp_path, capsys, report):
    record = SweepRecord(tmp_path / "sweep")
    completed_job(record)
    record.jobs.append(Job(1, ["pattern=dense", "tokens=64"], "failed", "CUDA out of memory"))
    record.write()
    conclude(record.folder)
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line
    ]
    assert rows == [
        ["job", "", "status", "objective", "peak GiB", "tokens/s"],
        ["0", "pattern=window", "completed", "0.5000", "1.25", "12.3k"],
        ["1", "pattern=dense", "failed", "", "", ""],
    ]
    assert report == [tmp_path / "sweep"]


def test_failures_are_listed_below_the_table_with_the_way_on(tmp_path, capsys, report, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "seed=0,1", "folder=old"])
    record = SweepRecord(tmp_path / "sweep", jobs=[Job(0, ["seed=0"], "failed", "CUDA out of memory")])
    record.write()
    conclude(record.folder)
    printed = capsys.readouterr().out
    assert "job 0 failed: CUDA out of memory" in printed
    assert f"python train.py -m seed=0,1 folder={tmp_path}/sweep" in printed


def test_a_report_that_fails_loses_nothing(tmp_path, capsys, report, monkeypatch):
    def fail(folder):
        raise ZeroDivisionError("no figures")

    monkeypatch.setattr(sys.modules["longtag.report.end_of_sweep"], "report_sweep", fail)
    record = SweepRecord(tmp_path / "sweep")
    completed_job(record)
    record.write()
    assert conclude(record.folder).jobs == record.jobs
    assert "no report: ZeroDivisionError: no figures" in capsys.readouterr().out


def test_jobs_of_another_launcher_are_found_by_their_folders(tmp_path, report):
    for number, status in ((0, "completed"), (10, "failed"), (2, None)):
        folder = tmp_path / str(number)
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save([f"seed={number}"], folder / ".hydra/overrides.yaml")
        if status:
            best = {"monitor": "val/loss", "best": {"val/loss": 0.25}}
            (folder / "summary.json").write_text(json.dumps({"status": status, "error": "broken", **best}))
    conclude(tmp_path)
    assert [(job["number"], job["status"], job["objective"]) for job in written(tmp_path)] == [
        (0, "completed", 0.25),
        (2, "interrupted", None),
        (10, "failed", None),
    ]
    assert written(tmp_path)[2]["overrides"] == ["seed=10"]


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("interrupted", 1), ("completed", None)])
def test_a_sweep_with_failed_jobs_exits_with_1(tmp_path, report, status, code):
    SweepRecord(tmp_path, jobs=[Job(0, ["seed=0"], status)]).write()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    if code is None:
        SweepEnd().on_multirun_end(config)
        return
    with pytest.raises(SystemExit) as left:
        SweepEnd().on_multirun_end(config)
    assert left.value.code == code
