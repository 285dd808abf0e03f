import json
import math
from pathlib import Path

from longtag.loggers.jsonl import JsonlLogger


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_call_is_on_disk_at_once_as_one_object(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": 1.5}, step=0)
    assert lines(logger.path)[0]["train/loss"] == 1.5
    logger.log_metrics({"val/loss": 2.5}, step=0)
    assert [line["step"] for line in lines(logger.path)] == [0, 0]


def test_a_value_that_is_not_finite_becomes_null(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.log_metrics({"train/loss": math.nan, "b": math.inf, "c": 0.0}, step=3)
    assert {name: lines(logger.path)[0][name] for name in ("train/loss", "b", "c")} == {
        "train/loss": None,
        "b": None,
        "c": 0.0,
    }


def test_a_resumed_run_replaces_the_lines_from_its_step_on_and_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "a": 1}\n{"step": 1, "a": 1}\n{"step": 2, "a": 1}\n{"step": 3, "a"')
    logger = JsonlLogger(path)
    logger.rewind(2)
    logger.log_metrics({"a": 2}, step=2)
    logger.log_metrics({"a": 2}, step=3)
    assert [(line["step"], line["a"]) for line in lines(path)] == [(0, 1), (1, 1), (2, 2), (3, 2)]


def test_no_file_is_made_before_the_first_line(tmp_path):
    logger = JsonlLogger(tmp_path / "metrics.jsonl")
    logger.finalize("success")
    assert not logger.path.exists()
