"""Measured rows, frozen dataclasses of text, numbers and flags, as CSV files in docs/."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

RowType = TypeVar("RowType")

TYPES = {"str": str, "int": int, "float": float, "bool": lambda text: text == "True"}


def read(path: Path, row_type: type[RowType]) -> list[RowType]:
    """The rows of a file that `write` has written; none where there is no such file."""
    if not path.exists():
        return []
    kinds = {field.name: TYPES[str(field.type)] for field in fields(row_type)}  # pyright: ignore[reportArgumentType]
    with path.open(newline="") as file:
        return [
            row_type(**{name: kind(record[name]) for name, kind in kinds.items()}) for record in csv.DictReader(file)
        ]


def replace_of_device(rows: Sequence[Any], path: Path) -> None:
    """All rows, of one type and one `device`, in place of those that a file has of this device."""
    elsewhere = [row for row in read(path, type(rows[0])) if row.device != rows[0].device]
    write([*elsewhere, *rows], path)


def write(rows: Sequence[Any], path: Path) -> None:
    """All rows, of one type, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
