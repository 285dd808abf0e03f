"""Run the jobs of a sweep: so many at once, each written down when it starts and when it ends, until Ctrl-C."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from longtag.folder import take_lock
from longtag.sweep.devices import Places
from longtag.sweep.display import Display
from longtag.sweep.outcome import Outcome
from longtag.sweep.process import JobProcess
from longtag.sweep.record import Job, SweepRecord

SECONDS_BETWEEN_LOOKS = 0.2
SIGNALS_TO_KILL = 3


@dataclass(frozen=True)
class Planned:
    """A job that is due.

    command: what runs it.
    gpus: how many it asks for.
    steps: how many optimizer steps it will take, to show how far it is.
    """

    job: Job
    command: Sequence[str]
    gpus: int
    steps: int


class Runner:
    """Starts what is due when there is a place for it, and follows what runs.

    Args:
        record: where the jobs are written down.
        places: how many jobs run at once, and on which GPUs.
        display: shows how far they are.
    """

    def __init__(self, record: SweepRecord, places: Places, display: Display) -> None:
        self.record = record
        self.places = places
        self.display = display
        self._running: dict[int, tuple[Planned, JobProcess]] = {}
        self._received: list[int] = []
        self._passed_on = 0

    def run(self, due: Sequence[Planned]) -> int | None:
        """Run jobs until all have ended.

        Returns:
            The signal that stopped the sweep before its end, or None.
        """
        waiting = list(due)
        with _signals_as(self._received.append), self.display:
            while self._running or (waiting and not self._received):
                self._collect()
                if self._received:
                    self._pass_on_signals()
                else:
                    self._start_what_fits(waiting)
                self.display.show(len(waiting))
                time.sleep(SECONDS_BETWEEN_LOOKS)
        return self._received[0] if self._received else None

    def _start_what_fits(self, waiting: list[Planned]) -> None:
        for planned in list(waiting):
            folder = self.record.folder_of(planned.job)
            if _in_use(folder):
                continue
            gpus = self.places.take(planned.gpus)
            if gpus is None:
                continue
            process = JobProcess(planned.command, folder, gpus=gpus, cpu_share=self.places.jobs_at_once)
            self._running[planned.job.number] = (planned, process)
            waiting.remove(planned)
            planned.job.status, planned.job.error = "running", None
            self.record.write()
            self.display.started(planned.job, planned.steps, gpus)

    def _collect(self) -> None:
        for number, (planned, process) in list(self._running.items()):
            ended = process.outcome()
            if ended is None:
                continue
            del self._running[number]
            self.places.give_back(process.gpus)
            if self._passed_on >= SIGNALS_TO_KILL:
                ended = Outcome("interrupted")
            ended.enter(planned.job)
            self.record.write()
            self.display.ended(planned.job)

    def _pass_on_signals(self) -> None:
        """Tell the jobs to save and end, at the second signal to end at once, and kill them at the third."""
        for number in self._received[self._passed_on :]:
            self._passed_on += 1
            for _, process in self._running.values():
                process.send(number if self._passed_on < SIGNALS_TO_KILL else signal.SIGKILL)
            if self._passed_on == 1 and self._running:
                self.display.say("stopping: the running jobs finish their step and save; once more to stop at once")


@contextlib.contextmanager
def _signals_as(receive: Callable[[int], object]) -> Iterator[None]:
    """Hand Ctrl-C and SIGTERM to a function instead of ending the process."""

    def handle(number: int, frame: FrameType | None) -> None:
        receive(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_use(folder: Path) -> bool:
    """Whether a process of an earlier try, whose sweep was killed, is still about to save there."""
    if not (folder / ".lock").is_file():
        return False
    lock = take_lock(folder)
    if lock is not None:
        lock.close()
    return lock is None
