"""Jobs that end without a word, in the queue that submitit has on one machine."""

# submitit is the extra `slurm`.
# pyright: reportMissingImports=false

import os
import signal
from functools import partial
from pathlib import Path

import pytest
from hydra.core.utils import JobStatus

from longtag.sweep.lost_jobs import lost_jobs_returned

pytest.importorskip("submitit", reason="the extra slurm is not installed")


def queue(folder: Path, *functions):
    from submitit import LocalExecutor

    executor = LocalExecutor(folder)
    executor.update_parameters(timeout_min=1)
    return [executor.submit(function) for function in functions]


def test_a_job_that_is_killed_does_not_hide_those_behind_it(tmp_path, monkeypatch):
    from submitit.core.core import Job

    monkeypatch.setattr(Job, "_results_timeout_s", 1)  # the seconds for which a slow file system is given a chance

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with lost_jobs_returned():
        jobs = queue(tmp_path, killed, partial(int, "3"), partial(int, "three"))
        (lost,), (done,), (failed,) = (job.results() for job in jobs)
    assert done == 3
    assert (lost.status, failed.status) == (JobStatus.FAILED, JobStatus.FAILED)
    assert str(lost._return_value) == f"ended without a result, state FINISHED ({jobs[0].paths.stderr})"
    assert str(failed._return_value).startswith("ValueError: invalid literal for int()")


def test_outside_of_a_sweep_submitit_is_as_it_was(tmp_path):
    from submitit.core.utils import FailedJobError

    with lost_jobs_returned():
        pass
    (job,) = queue(tmp_path, partial(int, "three"))
    with pytest.raises(FailedJobError):
        job.results()
