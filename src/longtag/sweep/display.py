"""What a sweep says while it runs: a live line for each job in a terminal, plain lines where the output is a file."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from longtag.sweep.outcome import LOG
from longtag.sweep.progress import progress
from longtag.sweep.record import Job, SweepRecord, varying

LIVE_EVERY_SECONDS = 0.5


class Display:
    """Follows the running jobs.

    Args:
        record: the sweep, whose folder holds what the jobs write; a job is named by what varies between all of them.
        plain_every_seconds: how often a running job has a line where the output is no terminal.
    """

    def __init__(self, record: SweepRecord, *, plain_every_seconds: float = 30.0) -> None:
        self.record = record
        self.plain_every_seconds = plain_every_seconds
        self._names = varying(record.jobs)
        self._width = max((len(name) for name in self._names.values()), default=0)
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._running: dict[int, tuple[Job, int, float]] = {}
        self._num_waiting = 0
        self._last_shown = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        self._last_shown = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(Text(line))
        sys.stdout.flush()

    def started(self, job: Job, steps: int, gpus: Sequence[str]) -> None:
        """A job has started on some GPUs and will take so many steps."""
        self._running[job.number] = (job, steps, time.monotonic())
        if not self._console.is_terminal:
            place = f" on GPU {', '.join(gpus)}" if gpus else ""
            self.say(f"{self._name(job)}  started{place}, log: {self._folder(job) / LOG}")

    def ended(self, job: Job) -> None:
        """A job has ended, as its status says."""
        _, _, started = self._running.pop(job.number)
        if self._console.is_terminal:
            self._live.update(self._block(), refresh=True)
        objective = "" if job.objective is None else f"  objective {job.objective:.4f}"
        error = "" if job.error is None else f"  {job.error}"
        self.say(f"{self._name(job)}  {job.status} after {_clock(time.monotonic() - started)}{objective}{error}")

    def show(self, num_waiting: int) -> None:
        """Show how far the running jobs are, if it is time to.

        Args:
            num_waiting: jobs that have not started.
        """
        due = LIVE_EVERY_SECONDS if self._console.is_terminal else self.plain_every_seconds
        if time.monotonic() - self._last_shown < due:
            return
        self._last_shown = time.monotonic()
        self._num_waiting = num_waiting
        if self._console.is_terminal:
            self._live.update(self._block(), refresh=True)
        else:
            for line in self._lines():
                self.say(line)

    def _lines(self) -> list[str]:
        return [f"{self._name(job)}  {self._so_far(job)}" for job, _, _ in self._running.values()]

    def _block(self) -> Group:
        waiting = [f"{self._num_waiting} waiting"] if self._num_waiting else []
        return Group(*(Text(line, no_wrap=True, overflow="ellipsis") for line in [*self._lines(), *waiting]))

    def _so_far(self, job: Job) -> str:
        _, steps, started = self._running[job.number]
        return f"{progress(self._folder(job), steps)}  {_clock(time.monotonic() - started)}"

    def _name(self, job: Job) -> str:
        return f"job {job.number:<3} {self._names[job.number]:<{self._width}}"

    def _folder(self, job: Job) -> Path:
        return self.record.folder_of(job)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
