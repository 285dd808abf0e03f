"""The end of a sweep: one table in the terminal, and the report."""

import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from longtag.sweep.outcome import LOG, outcome_on_disk, read_summary
from longtag.sweep.progress import with_unit
from longtag.sweep.record import Job, SweepRecord, varying, without_folder

WIDEST = 200
"""Columns of a table that goes to a file; a terminal has its own."""


def conclude(folder: Path) -> SweepRecord:
    """Print the table of a sweep and write its report, whatever became of its jobs.

    Args:
        folder: the folder of the sweep; jobs that nobody has written down are found by their own folders.
    """
    record = SweepRecord.read(folder)
    _add_unlisted(record)
    show_jobs(record)
    counts = Counter(job.status for job in record.jobs)
    print(", ".join(f"{count} {status}" for status, count in counts.items()) + f": {folder}")
    if counts.keys() - {"completed"}:
        print(f"what is not completed runs with: {command_to_go_on(folder)}")
    _report(folder)
    return record


def show_jobs(record: SweepRecord) -> None:
    """Print what varied, how each job ended and what it reached; below it why jobs failed."""
    names = varying(record.jobs)
    table = Table("job", "", "status", "objective", "peak GiB", "tokens/s", box=box.ASCII2)
    for job in record.jobs:
        table.add_row(str(job.number), names[job.number], job.status, *_figures(record, job))
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = WIDEST
    console.print(table)
    for job in record.jobs:
        if job.error is not None:
            log = record.folder_of(job) / LOG
            print(f"job {job.number} failed: {job.error}" + (f" ({log})" if log.is_file() else ""))


def command_to_go_on(folder: Path) -> str:
    """The command line that was given, with the folder that makes it go on."""
    given = [item for item in sys.argv if not item.startswith(("folder=", "hydra.sweep.dir="))]
    return shlex.join(["python", *given, f"folder={folder}"])


def _figures(record: SweepRecord, job: Job) -> list[str]:
    summary = read_summary(record.folder_of(job))
    peak = summary.get("memory/peak_allocated_gib", summary.get("memory/peak_rss_gib"))
    speed = summary.get("throughput/tokens_per_second")
    return [
        "" if job.objective is None else f"{job.objective:.4f}",
        "" if peak is None else f"{peak:.2f}",
        "" if speed is None else with_unit(speed),
    ]


def _add_unlisted(record: SweepRecord) -> None:
    """Enter the jobs of a sweeper and a launcher of which neither keeps a record."""
    listed = {job.number for job in record.jobs}
    found = {int(path.parts[-3]): path for path in record.folder.glob("*/.hydra/overrides.yaml") if _is_job(path)}
    for number in sorted(found.keys() - listed):
        overrides: Any = OmegaConf.to_container(OmegaConf.load(found[number]))
        job = Job(number, without_folder(overrides))
        outcome_on_disk(record.folder_of(job)).enter(job)
        record.jobs.append(job)
    if found.keys() - listed:
        record.task = record.task or shlex.join(sys.argv[1:])
        record.write()


def _is_job(path: Path) -> bool:
    return path.parts[-3].isdigit()


def _report(folder: Path) -> None:
    try:
        from longtag.report.end_of_sweep import report_sweep  # matplotlib is not needed before

        print("\n".join(report_sweep(folder)))
    except Exception as error:
        print(f"no report: {type(error).__name__}: {error}; python -m longtag.report {folder} tries again")
