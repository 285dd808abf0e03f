"""The files of W&B's offline runs, cut back to the step that a run goes on from, as metrics.jsonl is."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

MAGIC = b":W&B"
FILE_HEADER = 7
BLOCK = 32768
CHUNK_HEADER = struct.Struct("<IHB")
"""Checksum, length and kind of a part of a record."""
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def rewind_offline(folder: Path, run_id: str, step: int) -> None:
    """Take away rows from a step on, and a record that was cut off when the run was killed.

    ``wandb sync`` sends the files of a run, one for each start, one behind the other. At one that ends within a record
    it stops, and the later ones are never sent; and rows that come once more it gives other steps, behind those that
    came before.

    Args:
        folder: of the run.
        run_id: of the W&B run.
        step: that the run goes on from.
    """
    for path in folder.glob(f"wandb/offline-run-*-{run_id}*/run-{run_id}.wandb"):
        content = path.read_bytes()
        if content.startswith(MAGIC):
            os.truncate(path, _end(content, step))


def _end(content: bytes, step: int) -> int:
    kept = FILE_HEADER
    for start, end, payload in records(content):
        record = Record()
        try:
            record.ParseFromString(payload)
        except DecodeError:  # damaged, where W&B would stop as well
            return start
        if record.HasField("history") and record.history.step.num >= step:
            return start
        kept = end
    return kept


def records(content: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The whole records of a file, each with its start and its end: LevelDB's log format behind a header.

    A block of 32 KiB holds parts of records, or the rest of it is empty where a part's header would not fit.
    """
    position, start, parts = FILE_HEADER, FILE_HEADER, b""
    while True:
        left = BLOCK - position % BLOCK
        if left < CHUNK_HEADER.size:
            position += left
        if position + CHUNK_HEADER.size > len(content):
            return
        _, length, kind = CHUNK_HEADER.unpack_from(content, position)
        begin, end = position + CHUNK_HEADER.size, position + CHUNK_HEADER.size + length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or end > len(content):
            return
        if kind in (WHOLE, FIRST):
            start, parts = position, b""
        parts += content[begin:end]
        position = end
        if kind in (WHOLE, LAST):
            yield start, end, parts
