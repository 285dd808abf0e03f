"""A batch of jobs through a launcher that keeps no record of them, such as joblib's or submitit's."""

import shutil
import sys
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from longtag.errors import UsageError
from longtag.sweep.batch import Batch, entered
from longtag.sweep.lost_jobs import LostJob, lost_jobs_returned
from longtag.sweep.outcome import Outcome, outcome_on_disk, read_summary
from longtag.sweep.record import NAME, Job, SweepRecord

QUEUE_FILES = ".submitit"
"""What conf/hydra/launcher/slurm.yaml calls the folder of submitit's own files."""


def launch_recorded(
    launcher: Launcher, loader: ConfigLoader, sweep: DictConfig, job_overrides: Sequence[Sequence[str]]
) -> None:
    """Let the launcher run what is due of a batch, and write down what came back.

    Args:
        launcher: hands back how each job ended.
        loader: of the sweep.
        sweep: the composed config of the sweep, with Hydra's node.
        job_overrides: for each job its overrides.

    Raises:
        UsageError: the folder holds a run or is in use, none of the jobs can be run, or the launcher took none of them.
    """
    with entered(loader, sweep, job_overrides) as batch:
        if not batch.due:
            return
        for job, _ in batch.due:
            job.status, job.error = "running", None
        batch.record.write()
        for job, ended in _launch(launcher, batch, job_overrides):
            ended.enter(job)
        batch.record.write()


def _launch(launcher: Launcher, batch: Batch, job_overrides: Sequence[Sequence[str]]) -> list[tuple[Job, Outcome]]:
    record, due = batch.record, [job for job, _ in batch.due]
    given = {job.number: overrides for job, overrides in zip(batch.jobs, job_overrides, strict=True)}
    # Hydra names the folders of jobs by their place in what it hands over; the record has numbers of its own.
    handed_over = [[*given[job.number], f"hydra.sweep.subdir={job.folder}"] for job in due]
    try:
        with lost_jobs_returned():
            returned = launcher.launch(handed_over, initial_job_idx=due[0].number)
    except Exception as error:
        if any(record.folder_of(job).is_dir() for job in due):
            print(f"{type(launcher).__name__}: {error}", file=sys.stderr)
            return [(job, outcome_on_disk(record.folder_of(job))) for job in due]
        _forget(record, due)
        raise UsageError(
            f"hydra/launcher: {type(launcher).__name__} took none of the jobs: {error}; what it asks for are the "
            "options hydra.launcher.*, for example hydra.launcher.gpus_per_node=0 where there are no GPUs"
        ) from error
    return [(job, _outcome(record, job, end)) for job, end in zip(due, returned, strict=True)]


def _forget(record: SweepRecord, due: Sequence[Job]) -> None:
    """As if the batch had not been asked for, if nothing else was before it."""
    for job in due:
        job.status = "pending"
    record.write()
    if not any(record.folder_of(job).is_dir() for job in record.jobs):
        shutil.rmtree(record.folder / QUEUE_FILES, ignore_errors=True)
        (record.folder / NAME).unlink()


def _outcome(record: SweepRecord, job: Job, returned: JobReturn) -> Outcome:
    if returned.status is JobStatus.COMPLETED:
        return Outcome("completed", objective=returned.return_value)
    error = returned._return_value  # asking for `return_value` would raise it
    if isinstance(error, LostJob) and (left := read_summary(record.folder_of(job)).get("status")) == "interrupted":
        return Outcome(left)
    said = str(error) if isinstance(error, UsageError | LostJob) else f"{type(error).__name__}: {error}"
    return Outcome("failed", said)
