"""How far a job is, read from the end of its metrics.jsonl."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

END_OF_FILE = 16384
"""Bytes that hold the last lines of metrics.jsonl, validations included."""


def progress(folder: Path, steps: int) -> str:
    """A job's last step, loss and tokens per second in one line.

    Args:
        folder: the folder of the job.
        steps: the step at which it will be done.
    """
    for line in _last_lines(folder / "metrics.jsonl"):
        if "train/loss" in line:
            parts = [f"step {line['step'] + 1}/{steps}"]
            if line["train/loss"] is not None:
                parts.append(f"loss {line['train/loss']:.4f}")
            if speed := line.get("throughput/tokens_per_second"):
                parts.append(f"{with_unit(speed)} tokens/s")
            return "  ".join(parts)
    return "starting"


def with_unit(count: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def _last_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The last whole lines, the last one first; a line that is still being written is left out."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END_OF_FILE))
        lines = file.read().split(b"\n")
    for line in reversed(lines[:-1]):
        try:
            yield json.loads(line)
        except ValueError:  # the beginning of the first line was cut off
            continue
