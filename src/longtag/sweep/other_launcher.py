"""A batch of jobs through a launcher that keeps no record of them, such as joblib's or submitit's."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from longtag.errors import UsageError
from longtag.sweep.outcome import Outcome, outcome_on_disk
from longtag.sweep.record import Job, SweepRecord, without_folder


class KeepsRecord:
    """Marks a launcher that writes sweep.json itself."""


def launch_recorded(launcher: Launcher, folder: Path, batch: Sequence[Sequence[str]], first: int) -> None:
    """Let the launcher run a batch, and write down what came back.

    Args:
        launcher: hands back how each job ended, or raises if one of them was lost.
        folder: the folder of the sweep.
        batch: for each job its overrides.
        first: the number of the first.
    """
    known = SweepRecord.read(folder).jobs if first else []
    jobs = [Job(first + place, without_folder(overrides)) for place, overrides in enumerate(batch)]
    record = SweepRecord(folder, task=shlex.join(sys.argv[1:]), jobs=[*known, *jobs])
    record.write()
    try:
        returned = launcher.launch(batch, initial_job_idx=first)
    except Exception as error:
        print(f"{type(launcher).__name__}: {error}", file=sys.stderr)
        outcomes = [outcome_on_disk(record.folder_of(job)) for job in jobs]
    else:
        outcomes = list(map(_outcome, returned))
    for job, ended in zip(jobs, outcomes, strict=True):
        ended.enter(job)
    record.write()


def _outcome(returned: JobReturn) -> Outcome:
    if returned.status is JobStatus.COMPLETED:
        return Outcome("completed", objective=returned.return_value)
    error = returned._return_value  # asking for `return_value` would raise it
    return Outcome("failed", str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}")
