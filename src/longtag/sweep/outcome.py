"""How a job ended: from its exit code, its summary.json, and the last words in its log."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longtag.sweep.record import Job, Status

LOG = "output.log"

INTERRUPTED = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
"""Exit codes of a process that was asked to stop: by itself after it has saved, or at once."""


@dataclass(frozen=True)
class Outcome:
    """The part of a job's entry in sweep.json that its end decides."""

    status: Status
    error: str | None = None
    objective: float | None = None

    def enter(self, job: Job) -> None:
        job.status, job.error, job.objective = self.status, self.error, self.objective


def outcome(folder: Path, exit_code: int, log_start: int = 0) -> Outcome:
    """How a process ended that ran a job.

    Args:
        folder: the folder of the job.
        exit_code: of the process; negative if a signal killed it.
        log_start: where the output of this process begins in the log, in bytes.
    """
    if exit_code == 0:
        return Outcome("completed", objective=_objective(read_summary(folder)))
    if exit_code in INTERRUPTED:
        return Outcome("interrupted")
    if exit_code < 0:
        return Outcome("failed", _killed(-exit_code))
    said = _lines(folder / LOG, log_start)
    words = (exit_code == 2 and _messages(said)) or _exception(said) or f"exit code {exit_code}"
    return Outcome("failed", words)


def outcome_on_disk(folder: Path) -> Outcome:
    """How a job ended whose process is not known: the sweep itself was killed, or another launcher ran the job."""
    summary = read_summary(folder)
    status = summary.get("status", "interrupted")
    if status == "completed":
        return Outcome("completed", objective=_objective(summary))
    return Outcome(status, summary.get("error"))


def read_summary(folder: Path) -> dict[str, Any]:
    """The job's summary.json; empty if it never came to write one."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _objective(summary: dict[str, Any]) -> float | None:
    return summary.get("best", {}).get(summary.get("monitor"))


def _killed(number: int) -> str:
    name = signal.Signals(number).name
    return f"killed by {name}" + ("; the machine may have run out of memory" if number == signal.SIGKILL else "")


def _lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        file.seek(start)
        return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]


def _messages(lines: list[str]) -> str:
    """What the user can mend, as `longtag.entry` words it."""
    return "; ".join(line.removeprefix("error: ") for line in lines if line.startswith("error: "))


def _exception(lines: list[str]) -> str:
    """The last line of the last traceback; the last line of all if there is none."""
    traces = [number for number, line in enumerate(lines) if line.startswith("Traceback ")]
    below = lines[traces[-1] + 1 :] if traces else lines[-1:]
    return next((line.strip() for line in below if not traces or not line.startswith(" ")), "")
