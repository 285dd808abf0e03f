"""The report of a run that has just ended, in its folder and in its loggers; a run never fails for it."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from longtag.report.document import Document
from longtag.report.media import add_to_tensorboard, as_wandb
from longtag.report.write import describe, write_document


def report_run(folder: Path, loggers: Sequence[Logger], steps: int) -> None:
    """Write report.html, report.md, report.csv and figures/*.png, and log the same to W&B and TensorBoard.

    steps: optimizer steps that the run has done.
    """
    try:
        document = describe([folder])
        pngs = write_document(document, folder)
        for logger in loggers:
            _log(logger, document, pngs, steps)
    except Exception as error:
        warnings.warn(
            f"the report could not be made ({type(error).__name__}: {error}); "
            f"the run is not harmed: python -m longtag.report {folder} tries again",
            stacklevel=2,
        )


def _log(logger: Logger, document: Document, pngs: Mapping[str, bytes], steps: int) -> None:
    if isinstance(logger, WandbLogger):
        logger.log_metrics(as_wandb(document, pngs), steps)  # pyright: ignore[reportArgumentType]
    elif isinstance(logger, TensorBoardLogger):
        add_to_tensorboard(logger.experiment, document, pngs, steps)
    else:
        return
    # Waits for what sends in a thread of its own: the W&B run is about to be closed.
    logger.finalize("success")
