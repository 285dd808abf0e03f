"""TensorBoard: `tensorboard --logdir FOLDER` over a run, or over the folder of a sweep."""

from importlib.util import find_spec
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger

from longtag.errors import UsageError


def tensorboard_logger(*, folder: Path, run_id: str, flush_seconds: int = 30) -> TensorBoardLogger:
    """A logger that writes event files to ``folder/tensorboard``; a run that goes on adds a file.

    Args:
        folder: the folder of the run.
        run_id: not used: the folder names the run.
        flush_seconds: between two writes to the disk.

    Raises:
        UsageError: the package tensorboard is not installed, or a time that is none.
    """
    if flush_seconds < 1:
        raise UsageError(f"flush_seconds={flush_seconds}: expected 1 or more seconds")
    if find_spec("tensorboard") is None:
        raise UsageError("logger=tensorboard: needs a package of its own; pip install -e '.[tensorboard]'")
    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False, flush_secs=flush_seconds)
