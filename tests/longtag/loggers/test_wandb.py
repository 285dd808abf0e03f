"""The offline file of W&B is read back with W&B's own messages: what it holds is what metrics.jsonl holds."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

from longtag.loggers.wandb import is_logged_in

from ..conftest import run_in_folder


def records(path: Path) -> Iterator[Record]:
    """The records of a .wandb file: a header of 7 bytes, then blocks of 32 KiB of LevelDB's log format."""
    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def history(folder: Path) -> list[dict]:
    rows = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


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
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = history(folder)
    assert [row["trainer/global_step"] for row in rows] == [line["step"] for line in lines]
    for row, line in zip(rows, lines, strict=True):
        shared = {name: value for name, value in line.items() if name not in ("step", "time")}
        assert {name: row[name] for name in shared} == pytest.approx(shared)
    ids = {path.stem for path in folder.glob("wandb/offline-run-*/run-*.wandb")}
    assert ids == {"run-" + (folder / "run_id").read_text()}


def test_a_run_of_a_sweep_joins_its_group_and_carries_tags_and_facts(tiny, tmp_path, logged_out):
    (tmp_path / "sweep.json").touch()
    run_in_folder(tiny("logger=wandb", "trainer.max_steps=1", "test=false", "callbacks=none"))
    (path,) = (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")
    kept = {record.WhichOneof("record_type"): record for record in records(path)}
    assert kept["run"].run.run_group == tmp_path.name
    assert kept["run"].run.display_name == f"{tmp_path.name}/run"
    assert list(kept["run"].run.tags) == ["synthetic", "window", "fast", "64 tokens"]
    updates = [record.config.update for record in records(path) if record.WhichOneof("record_type") == "config"]
    config = {item.key: json.loads(item.value_json) for update in updates for item in update}
    assert config["tokens"] == 64
    assert {"commit", "command", "device", "torch"} <= set(config["facts"])


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
