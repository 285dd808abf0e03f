import json

import pytest

from longtag.errors import UsageError
from longtag.sweep.record import Job, SweepRecord, varying


def test_a_job_keeps_its_number_whatever_is_swept_over_later(tmp_path):
    record = SweepRecord(tmp_path)
    assert [record.job_of([f"pattern={name}", "seed=0"]).number for name in ("window", "random")] == [0, 1]
    record.write()

    later = SweepRecord.read(tmp_path)
    asked = (["pattern=bigbird", "seed=0"], ["seed=0", "pattern=random"], ["pattern=window", "seed=1"])
    assert [later.job_of(overrides).number for overrides in asked] == [2, 1, 3]


def test_the_same_overrides_are_one_job_wherever_the_sweep_lies(tmp_path):
    record = SweepRecord(tmp_path)
    first = record.job_of(["seed=0", "folder=outputs/here"])
    assert record.job_of(["folder=outputs/there", "seed=0"]) is first
    assert first.overrides == ["seed=0"]


def test_what_is_written_is_read_again(tmp_path):
    record = SweepRecord(tmp_path / "mine", task="-m seed=0,1")
    record.jobs = [Job(0, ["seed=0"], "completed", None, 0.5), Job(1, ["seed=1"], "failed", "out of memory")]
    record.write()
    assert json.loads((tmp_path / "mine/sweep.json").read_text()) == {
        "task": "-m seed=0,1",
        "group": "mine",
        "jobs": [
            {
                "number": 0,
                "overrides": ["seed=0"],
                "status": "completed",
                "error": None,
                "objective": 0.5,
                "folder": "0",
            },
            {
                "number": 1,
                "overrides": ["seed=1"],
                "status": "failed",
                "error": "out of memory",
                "objective": None,
                "folder": "1",
            },
        ],
    }
    read = SweepRecord.read(tmp_path / "mine")
    assert (read.task, read.jobs) == (record.task, record.jobs)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["sweep.json"]


def test_the_folder_of_a_run_is_refused(tmp_path):
    (tmp_path / "run_id").write_text("abcd")
    with pytest.raises(UsageError, match="a single run lies there"):
        SweepRecord.read(tmp_path)


@pytest.mark.parametrize("content", ['{"task', "[]", "{}", '{"task": "", "jobs": [{"nummer": 1}]}'])
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UsageError, match=r"sweep.json: damaged.*; remove it, or give folder="):
        SweepRecord.read(tmp_path)


def test_jobs_are_told_apart_by_what_varies():
    jobs = [Job(0, ["pattern=window", "tokens=64"]), Job(1, ["pattern=random", "tokens=64", "seed=1"])]
    assert varying(jobs) == {0: "pattern=window", 1: "pattern=random seed=1"}
    assert varying(jobs[:1]) == {0: "pattern=window tokens=64"}


def test_an_option_that_goes_with_a_choice_is_said_only_where_the_choice_is_there_with_another():
    dilated = Job(0, ["tokens=64", "pattern=dilated", "pattern.window=2", "pattern.dilations=[1,3,9]"])
    narrow, wide = (Job(size, ["tokens=64", "pattern=window", f"pattern.window={size}"]) for size in (16, 64))
    assert varying([dilated, wide]) == {0: "pattern=dilated", 64: "pattern=window"}
    assert varying([dilated, narrow, wide]) == {
        0: "pattern=dilated",
        16: "pattern=window pattern.window=16",
        64: "pattern=window pattern.window=64",
    }
    assert varying([narrow, wide]) == {16: "pattern.window=16", 64: "pattern.window=64"}
