"""The story of a batch of jobs on this machine: enter it in the record, run what is due, hand back what came out."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from longtag.errors import UsageError
from longtag.sweep.batch import Batch, entered, leave_nothing_of_nothing
from longtag.sweep.conclusion import conclude
from longtag.sweep.devices import Places, gpus_wanted, visible_gpus
from longtag.sweep.display import Display
from longtag.sweep.plan import CommandLine
from longtag.sweep.record import Job
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
    if jobs_at_once is not None and (not isinstance(jobs_at_once, int) or jobs_at_once < 1):
        leave_nothing_of_nothing(Path(sweep.hydra.sweep.dir))
        raise UsageError(f"hydra.launcher.jobs_at_once={jobs_at_once}: expected 1 or more, or null")
    with entered(context.config_loader, sweep, job_overrides) as batch:
        command_line = CommandLine.of(Path(inspect.getfile(task)).resolve(), sweep)
        places = Places(visible_gpus(), jobs_at_once)
        due = _plan(batch, command_line, places)
        stopped_by = Runner(batch.record, places, Display(batch.record)).run(due)
    if stopped_by is not None:
        conclude(batch.record.folder)
        raise SystemExit(128 + stopped_by)
    return [_returned(job) for job in batch.jobs]


def _plan(batch: Batch, command_line: CommandLine, places: Places) -> list[Planned]:
    return [
        Planned(
            job,
            command_line.of_job(job.overrides, batch.record.folder_of(job)),
            gpus_wanted(config.trainer, places.num_gpus),
            config.trainer.max_steps,
        )
        for job, config in batch.due
    ]


def _returned(job: Job) -> JobReturn:
    completed = job.status == "completed"
    returned = JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED if completed else JobStatus.FAILED)
    returned.return_value = job.objective if completed else JobFailed(job.error or job.status)
    return returned
