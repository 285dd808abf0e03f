"""Jobs of a queue that end without a word: killed, cancelled, or out of time once too often."""

# submitit is the extra `slurm`.
# pyright: reportMissingImports=false

import contextlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from hydra.core.utils import JobReturn, JobStatus


class LostJob(Exception):
    """A job that handed nothing back; the message has what its queue calls that, and where its log lies."""


@contextlib.contextmanager
def lost_jobs_returned() -> Iterator[None]:
    """Let submitit hand back a lost job as one that failed.

    Else it raises at the first of them, and Hydra's launcher with it, while the jobs behind it are still running.
    """
    if find_spec("submitit") is None:
        yield
        return
    from submitit.core.core import Job
    from submitit.core.utils import FailedJobError, UncompletedJobError

    results = Job.results

    def results_or_lost(job: Any) -> list[Any]:
        try:
            return results(job)
        except (FailedJobError, UncompletedJobError) as error:
            returned = JobReturn(status=JobStatus.FAILED)
            returned.return_value = LostJob(_why(job, str(error)))
            return [returned]

    # Hydra's plugin makes and asks its jobs by itself, with no place to hand it other ones.
    Job.results = results_or_lost  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        Job.results = results


def _why(job: Any, message: str) -> str:
    """One line out of the pages that submitit writes."""
    if state := re.search(r"has not produced any output \(state: (.*)\)", message):
        said = f"ended without a result, state {state[1]}"
    else:  # an exception outside of the job's own run, with its traceback
        trace = message.partition("-" * 22)[2].partition("-" * 22)[0]
        said = next((line for line in reversed(trace.splitlines()) if line.strip()), message.splitlines()[0])
    return f"{said} ({job.paths.stderr})"
