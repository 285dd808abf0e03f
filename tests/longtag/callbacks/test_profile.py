"""debug=profile: a trace that a viewer opens and a table of operators, in the run's folder and on the terminal."""

import gzip
import json

import pytest

from longtag.callbacks.profile import Profile
from longtag.errors import UsageError

from ..conftest import run_in_folder


def test_a_trace_and_a_table_of_operators_are_left_in_the_folder(tiny, tmp_path, capsys):
    run_in_folder(tiny("debug=profile", "trainer.max_steps=6", "trainer.val_check_interval=6"))
    folder = tmp_path / "run/profile"
    assert {path.name for path in folder.iterdir()} == {"trace.json.gz", "operators.txt"}
    with gzip.open(folder / "trace.json.gz") as file:
        names = [event["name"] for event in json.load(file)["traceEvents"]]
    assert names.count("ProfilerStep#2") == 1
    assert {f"ProfilerStep#{step}" for step in (2, 3, 4)} == {name for name in names if "ProfilerStep" in name}
    assert "aten::addmm" in names
    table = (folder / "operators.txt").read_text()
    assert "ProfilerStep" not in table
    assert "CPU ms" in table
    shares = [float(line.split("|")[3].strip(" %")) for line in table.splitlines() if "aten::" in line]
    # Which operators are costliest depends on how busy the machine is.
    assert shares
    assert shares == sorted(shares, reverse=True)
    assert len(table.splitlines()) == 15 + 4
    printed = capsys.readouterr().out
    assert "aten::" in printed
    assert str(folder / "trace.json.gz") in printed


def test_a_run_that_ends_before_the_trace_is_whole_leaves_what_there_is(tiny, tmp_path):
    run_in_folder(tiny("debug=profile", "trainer.max_steps=3", "trainer.val_check_interval=3"))
    with gzip.open(tmp_path / "run/profile/trace.json.gz") as file:
        assert "ProfilerStep#2" in {event["name"] for event in json.load(file)["traceEvents"]}


def test_steps_are_optimizer_steps(tiny, tmp_path):
    run_in_folder(tiny("debug=profile", "trainer.max_steps=6", "trainer.accumulate_grad_batches=2",
                       "callbacks.profile.steps=1"))  # fmt: skip
    with gzip.open(tmp_path / "run/profile/trace.json.gz") as file:
        names = [event["name"] for event in json.load(file)["traceEvents"]]
    assert sum(name == "Optimizer.step#AdamW.step" for name in names) == 1


@pytest.mark.parametrize("option", ["wait=-1", "warmup=-1", "steps=0", "operators=0"])
def test_numbers_that_make_no_trace_are_refused(option):
    name, value = option.split("=")
    with pytest.raises(UsageError, match=option):
        Profile(**{name: int(value)})
