"""What the offline files of W&B hold, read with W&B's own messages."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

from longtag.loggers import wandb_file


def records(path: Path) -> Iterator[Record]:
    """The records of a .wandb file."""
    content = path.read_bytes()
    assert content.startswith(wandb_file.MAGIC)
    for _, _, payload in wandb_file.records(content):
        record = Record()
        record.ParseFromString(payload)
        yield record


def history(folder: Path, starts: int) -> list[dict]:
    rows = []
    for path in offline_files(folder, starts):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def offline_files(folder: Path, count: int) -> list[Path]:
    """The files of so many finished starts of a run; W&B's own process closes them a moment later."""
    end = time.monotonic() + 20
    while True:
        files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
        kinds = [{record.WhichOneof("record_type") for record in records(path)} for path in files]
        if len(files) == count and all("exit" in found for found in kinds):
            return files
        assert time.monotonic() < end, kinds
        time.sleep(0.05)


def summary(path: Path) -> dict:
    """The summary that a file leaves."""
    left = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            items = record.summary.update
            left |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
    return left
