"""The story of a batch of jobs: find them in the record, check what is due, run it, hand back what came out."""

import inspect
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from longtag.errors import UsageError
from longtag.folder import NO_PATH, remove_empty, take_lock
from longtag.sweep.conclusion import command_to_go_on, conclude
from longtag.sweep.devices import Places, gpus_wanted, visible_gpus
from longtag.sweep.display import Display
from longtag.sweep.outcome import outcome_on_disk
from longtag.sweep.plan import CommandLine, compose_job
from longtag.sweep.record import Job, SweepRecord
from longtag.sweep.runner import Planned, Runner


class JobFailed(Exception):
    """A job of a sweep did not come to its end; the message says why."""


def launch(
    context: HydraContext,
    task: TaskFunction,
    sweep: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    jobs_at_once: int | None,
) -> list[JobReturn]:
    """Run a batch of jobs, each in a process of its own; those that are completed already are not run again.

    Args:
        context: of the sweep.
        task: the function that Hydra calls; each job runs the script that it lies in.
        sweep: the composed config of the sweep, with Hydra's node.
        job_overrides: for each job its overrides.
        jobs_at_once: how many run at the same time; None for one a GPU, or one where there is none.

    Returns:
        For each job its objective, or a JobFailed.

    Raises:
        UsageError: the folder holds a run or is in use, or none of the jobs can be run; nothing is left on disk then.
        SystemExit: the sweep was interrupted, after its jobs have saved.
    """
    folder = Path(sweep.hydra.sweep.dir)
    try:
        if jobs_at_once is not None and (not isinstance(jobs_at_once, int) or jobs_at_once < 1):
            raise UsageError(f"hydra.launcher.jobs_at_once={jobs_at_once}: expected 1 or more, or null")
        if sweep.folder == "":
            raise UsageError(NO_PATH)
        record = SweepRecord.read(folder)
    except UsageError:
        _leave_nothing_of_nothing(folder)
        raise
    record.folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(record.folder)
    if lock is None:
        raise UsageError(f"folder={record.folder}: another sweep is using this folder; give another one")
    with lock:
        try:
            jobs = _enter(record, job_overrides)
            command_line = CommandLine.of(Path(inspect.getfile(task)).resolve(), sweep)
            places = Places(visible_gpus(), jobs_at_once)
            due = _plan(context, sweep, record, jobs, command_line, places)
            _announce(record, jobs, due)
            record.write()
            stopped_by = Runner(record, places, Display(record)).run(due)
        finally:
            (record.folder / ".lock").unlink(missing_ok=True)
            _leave_nothing_of_nothing(folder)
    if stopped_by is not None:
        conclude(record.folder)
        raise SystemExit(128 + stopped_by)
    return [_returned(job) for job in jobs]


def _enter(record: SweepRecord, job_overrides: Sequence[Sequence[str]]) -> list[Job]:
    """The jobs of a batch, known ones under the numbers that they have."""
    record.task = record.task or shlex.join(sys.argv[1:])
    for job in record.jobs:
        if job.status == "running":  # when the sweep was killed
            outcome_on_disk(record.folder_of(job)).enter(job)
    return [record.job_of(overrides) for overrides in job_overrides]


def _plan(
    context: HydraContext,
    sweep: DictConfig,
    record: SweepRecord,
    jobs: Sequence[Job],
    command_line: CommandLine,
    places: Places,
) -> list[Planned]:
    """What is to be run; a job whose options cannot be used is entered as failed.

    Raises:
        UsageError: that holds for every job, and nothing else lies in the folder.
    """
    due, refused = [], []
    for job in {job.number: job for job in jobs if job.status != "completed"}.values():
        try:
            config = compose_job(context.config_loader, sweep, job.overrides)
        except UsageError as error:
            job.status, job.error, job.objective = "failed", "; ".join(str(error).splitlines()), None
            refused.append(job)
            continue
        if job.status == "failed":
            job.status, job.error = "pending", None
        command = command_line.of_job(job.overrides, record.folder_of(job))
        due.append(Planned(job, command, gpus_wanted(config.trainer, places.num_gpus), config.trainer.max_steps))
    if len(refused) == len(record.jobs):
        raise UsageError("\n".join(dict.fromkeys(str(job.error) for job in refused)))
    return due


def _announce(record: SweepRecord, jobs: Sequence[Job], due: Sequence[Planned]) -> None:
    known = len({job.number for job in jobs})
    done, refused = (sum(job.status == status for job in jobs) for status in ("completed", "failed"))
    parts = [f"{known} jobs", f"{done} done before" if done else "", f"{refused} refused" if refused else ""]
    print(f"sweep: {', '.join(filter(None, parts))}; folder {record.folder}")
    for job in jobs:
        if job.status == "failed":
            print(f"job {job.number} refused: {job.error}")
    if due:
        print(f"stopped at any time, it goes on with: {command_to_go_on(record.folder)}", flush=True)


def _leave_nothing_of_nothing(folder: Path) -> None:
    """Remove the folder of a sweep that was refused as a whole."""
    if not (folder / "sweep.json").is_file():
        (folder / "multirun.yaml").unlink(missing_ok=True)
        remove_empty(folder)


def _returned(job: Job) -> JobReturn:
    completed = job.status == "completed"
    returned = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED if completed else JobStatus.FAILED)
    returned.return_value = job.objective if completed else JobFailed(job.error or job.status)
    return returned
