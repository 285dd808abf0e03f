"""Files of offline runs as W&B writes them, cut back."""

from pathlib import Path

import pytest
import wandb

from longtag.loggers import wandb_file
from longtag.loggers.wandb import quiet
from longtag.loggers.wandb_file import rewind_offline

from .offline import offline_files, records

ROWS = 200
LONG = "x" * 1000
"""Text of a row, so that the rows fill several blocks of the file and some lie in two."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with wandb.init(mode="offline", id="mine", dir=tmp_path, settings=quiet()) as run:
        for step in range(ROWS):
            run.log({"text": LONG}, step=step)
    (path,) = offline_files(tmp_path, 1)
    assert path.stat().st_size > 4 * 32768
    return path


def steps(file: Path) -> list[int]:
    return [record.history.step.num for record in records(file) if record.HasField("history")]


def ends(file: Path) -> list[int]:
    return [end for _, end, _ in wandb_file.records(file.read_bytes())]


@pytest.mark.parametrize("step", [0, 1, 31, 32, 33, 150, ROWS, ROWS + 1])
def test_the_rows_before_the_step_are_kept_and_no_others(file, tmp_path, step):
    rewind_offline(tmp_path, "mine", step)
    assert steps(file) == list(range(min(step, ROWS)))


@pytest.mark.parametrize("cut", [1, 6, 500, 40000])
def test_a_record_that_was_cut_off_is_taken_away_and_no_whole_one(file, tmp_path, cut):
    content = file.read_bytes()[:-cut]
    whole = [end for end in ends(file) if end <= len(content)]
    file.write_bytes(content)
    rewind_offline(tmp_path, "mine", ROWS)
    assert ends(file) == whole
    assert file.stat().st_size == whole[-1] < len(content)


def test_from_a_damaged_record_on_nothing_is_kept(file, tmp_path):
    content = bytearray(file.read_bytes())
    start, end, payload = list(wandb_file.records(bytes(content)))[100]
    assert end - start == wandb_file.CHUNK_HEADER.size + len(payload)  # in one part
    content[end - len(payload) : end] = b"\xff" * len(payload)
    file.write_bytes(content)
    rewind_offline(tmp_path, "mine", ROWS)
    assert file.stat().st_size == start


def test_other_runs_and_what_is_no_file_of_wandb_are_left_alone(file, tmp_path):
    before = file.read_bytes()
    other = tmp_path / "wandb/offline-run-20260101_000000-mine/run-mine.wandb"
    other.parent.mkdir()
    other.write_text("not of W&B")
    rewind_offline(tmp_path, "another", 0)
    assert file.read_bytes() == before
    rewind_offline(tmp_path, "mine", ROWS)
    assert other.read_text() == "not of W&B"
