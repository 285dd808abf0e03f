"""metrics.jsonl: one JSON object for each logged step, written at once."""

import json
import math
import time
from argparse import Namespace
from pathlib import Path
from typing import IO, Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


class JsonlLogger(Logger):
    """Appends ``{"step": ..., "time": ..., **metrics}`` lines; a value that is not finite becomes null.

    Args:
        path: the file, created at the first line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._file: IO[str] | None = None

    @property
    def name(self) -> str:
        return "jsonl"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The config lies in the run's folder already."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self._file is None:
            self._file = self.path.open("a")
        # Lightning adds the epoch to every line; crops never run out, so there is only one.
        finite = {
            name: float(value) if math.isfinite(value) else None for name, value in metrics.items() if name != "epoch"
        }
        self._file.write(json.dumps({"step": step, "time": time.time(), **finite}) + "\n")
        self._file.flush()

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the lines from a step on, and those of a test: the run goes on there and writes them again."""
        if not self.path.is_file():
            return
        kept = [line for line in self.path.read_text().splitlines(keepends=True) if _step_of(line) < step]
        draft = self.path.with_suffix(".jsonl.part")
        draft.write_text("".join(kept))
        draft.replace(self.path)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _step_of(line: str) -> float:
    """The step of a line; that of a test, or one that was cut off by a crash, counts as one to drop."""
    try:
        row = json.loads(line)
        return math.inf if any(name.startswith("test/") for name in row) else row["step"]
    except (ValueError, KeyError):
        return math.inf
