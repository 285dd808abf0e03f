"""sweep.json: the jobs of a sweep and how far each has come, written whole after every change."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from longtag.errors import UsageError
from longtag.folder import write_json

Status = Literal["pending", "running", "completed", "failed", "interrupted"]

NAME = "sweep.json"


@dataclass
class Job:
    """One run of a sweep.

    number: names its folder; kept for good, whatever is swept over later in the same folder.
    overrides: what was asked of it, without the folder.
    error: why it failed; None unless it did.
    objective: the best value of ``monitor``; None until it is completed.
    """

    number: int
    overrides: list[str]
    status: Status = "pending"
    error: str | None = None
    objective: float | None = None

    @property
    def folder(self) -> str:
        return str(self.number)


class SweepRecord:
    """The jobs that a folder holds, as sweep.json has them.

    Args:
        folder: the folder of the sweep.
        jobs: its jobs so far.
        task: what the sweep was asked for, in the words of the command line.
    """

    def __init__(self, folder: Path, *, task: str = "", jobs: Iterable[Job] = ()) -> None:
        self.folder = folder
        self.task = task
        self.jobs = list(jobs)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What lies in a folder; a record without jobs if nothing does.

        Raises:
            UsageError: the folder holds a single run, or a record that is damaged.
        """
        path = folder / NAME
        if not path.is_file():
            if (folder / "run_id").is_file():
                raise UsageError(f"folder={folder}: a single run lies there; give a sweep a folder of its own")
            return cls(folder)
        try:
            written = json.loads(path.read_text())
            jobs = [Job(**{name: value for name, value in job.items() if name != "folder"}) for job in written["jobs"]]
            return cls(folder, task=written["task"], jobs=jobs)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UsageError(
                f"{path}: damaged, or not the record of a sweep; remove it, or give folder=... with another folder"
            ) from error

    @property
    def group(self) -> str:
        """The name that the runs of the sweep share where they are watched."""
        return self.folder.resolve().name

    def job_of(self, overrides: Iterable[str]) -> Job:
        """The job with these overrides, in any order: one that is there, or a new one under the next free number."""
        wanted = without_folder(overrides)
        for job in self.jobs:
            if sorted(job.overrides) == sorted(wanted):
                return job
        job = Job(number=1 + max((job.number for job in self.jobs), default=-1), overrides=wanted)
        self.jobs.append(job)
        return job

    def folder_of(self, job: Job) -> Path:
        return self.folder / job.folder

    def write(self) -> None:
        """Replace sweep.json in one step, so that a reader never sees half of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        jobs: list[dict[str, Any]] = [asdict(job) | {"folder": job.folder} for job in self.jobs]
        write_json(self.folder / NAME, {"task": self.task, "group": self.group, "jobs": jobs})


class KeepsRecord:
    """Marks a launcher that writes sweep.json itself."""


def without_folder(overrides: Iterable[str]) -> list[str]:
    """Overrides less the sweep's own folder: it may be moved, and is no part of what a job is."""
    return [item for item in overrides if item.split("=")[0] != "folder"]


def varying(jobs: Iterable[Job]) -> dict[int, str]:
    """What tells the jobs apart: for each number the overrides that are not the same in all of them.

    ``pattern.window=64`` is left out where every job with the same ``pattern=window`` has it: the choice says it.
    """
    jobs = list(jobs)
    if len(jobs) == 1:
        return {jobs[0].number: " ".join(jobs[0].overrides)}
    return {job.number: " ".join(item for item in job.overrides if _tells_apart(item, job, jobs)) for job in jobs}


def _tells_apart(item: str, job: Job, jobs: Iterable[Job]) -> bool:
    group = item.lstrip("+~").partition("=")[0].partition(".")[0]
    choice = next((other for other in job.overrides if other != item and other.startswith(f"{group}=")), None)
    alike = (other for other in jobs if choice is None or choice in other.overrides)
    return not all(item in other.overrides for other in alike)
