"""A batch of jobs on its way through the record: found there, checked, and entered before anything is started."""

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig

from longtag.errors import UsageError
from longtag.folder import NO_PATH, remove_empty, take_lock
from longtag.sweep.conclusion import command_to_go_on
from longtag.sweep.outcome import outcome_on_disk
from longtag.sweep.plan import compose_job
from longtag.sweep.record import Job, SweepRecord


@dataclass(frozen=True)
class Batch:
    """Jobs that a sweep was asked for together.

    jobs: all of them, known ones under the numbers that they have.
    due: those that are to be run, each with its composed config.
    """

    record: SweepRecord
    jobs: Sequence[Job]
    due: Sequence[tuple[Job, DictConfig]]


@contextlib.contextmanager
def entered(loader: ConfigLoader, sweep: DictConfig, job_overrides: Sequence[Sequence[str]]) -> Iterator[Batch]:
    """A batch in the record, whose folder belongs to this process until the context is left.

    Args:
        loader: of the sweep.
        sweep: the composed config of the sweep, with Hydra's node.
        job_overrides: for each job its overrides.

    Raises:
        UsageError: the folder holds a run or is in use, or none of the jobs can be run; nothing is left on disk then.
    """
    folder = Path(sweep.hydra.sweep.dir)
    try:
        if sweep.folder == "":
            raise UsageError(NO_PATH)
        record = SweepRecord.read(folder)
    except UsageError:
        leave_nothing_of_nothing(folder)
        raise
    record.folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(record.folder)
    if lock is None:
        raise UsageError(f"folder={record.folder}: another sweep is using this folder; give another one")
    with lock:
        try:
            jobs = _enter(record, job_overrides)
            batch = Batch(record, jobs, _due(loader, sweep, record, jobs))
            _announce(batch)
            record.write()
            yield batch
        finally:
            (record.folder / ".lock").unlink(missing_ok=True)
            leave_nothing_of_nothing(folder)


def leave_nothing_of_nothing(folder: Path) -> None:
    """Remove the folder of a sweep that was refused as a whole."""
    if not (folder / "sweep.json").is_file():
        (folder / "multirun.yaml").unlink(missing_ok=True)
        remove_empty(folder)


def _enter(record: SweepRecord, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
    record.task = record.task or shlex.join(sys.argv[1:])
    for job in record.jobs:
        if job.status == "running":  # when the sweep was killed
            outcome_on_disk(record.folder_of(job)).enter(job)
    return [record.job_of(overrides) for overrides in job_overrides]


def _due(
    loader: ConfigLoader, sweep: DictConfig, record: SweepRecord, jobs: Sequence[Job]
) -> list[tuple[Job, DictConfig]]:
    """What is to be run; a job whose options cannot be used is entered as failed.

    Raises:
        UsageError: that holds for every job, and nothing else lies in the folder.
    """
    due, refused = [], []
    for job in {job.number: job for job in jobs if job.status != "completed"}.values():
        try:
            config = compose_job(loader, sweep, job.overrides)
        except UsageError as error:
            job.status, job.error, job.objective = "failed", "; ".join(str(error).splitlines()), None
            refused.append(job)
            continue
        if job.status == "failed":
            job.status, job.error = "pending", None
        due.append((job, config))
    if len(refused) == len(record.jobs):
        raise UsageError("\n".join(dict.fromkeys(str(job.error) for job in refused)))
    return due


def _announce(batch: Batch) -> None:
    known = len({job.number for job in batch.jobs})
    done, refused = (sum(job.status == status for job in batch.jobs) for status in ("completed", "failed"))
    parts = [f"{known} jobs", f"{done} done before" if done else "", f"{refused} refused" if refused else ""]
    print(f"sweep: {', '.join(filter(None, parts))}; folder {batch.record.folder}")
    for job in batch.jobs:
        if job.status == "failed":
            print(f"job {job.number} refused: {job.error}")
    if batch.due:
        print(f"stopped at any time, it goes on with: {command_to_go_on(batch.record.folder)}", flush=True)
