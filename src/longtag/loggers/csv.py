"""A table of comma-separated values for each start of a run, for spreadsheets."""

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from longtag.errors import UsageError


def csv_logger(*, folder: Path, run_id: str, flush_every_steps: int = 100) -> CSVLogger:
    """A logger that writes ``folder/csv/<start>/metrics.csv``, starts counted from 0: a table is never gone on with.

    Args:
        folder: the folder of the run.
        run_id: not used: the folder names the run.
        flush_every_steps: optimizer steps between two writes to the disk.

    Raises:
        UsageError: fewer steps than one.
    """
    if flush_every_steps < 1:
        raise UsageError(f"flush_every_steps={flush_every_steps}: expected a number of optimizer steps from 1 up")
    starts = len(list((folder / "csv").glob("*/")))
    return CSVLogger(folder, name="csv", version=str(starts), flush_logs_every_n_steps=flush_every_steps)
