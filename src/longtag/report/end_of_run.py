"""The report of a run that has just ended, in its folder and in W&B; a run never fails for it."""

import warnings
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import wandb
from lightning.pytorch.loggers import Logger, WandbLogger
from PIL import Image

from longtag.report.document import Document
from longtag.report.write import describe, write_document


def report_run(folder: Path, loggers: Sequence[Logger]) -> None:
    """Write report.html, report.md, report.csv and figures/*.png, and log the same figures and tables to W&B."""
    try:
        document = describe([folder])
        pngs = write_document(document, folder)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                _log(logger, document, pngs)
    except Exception as error:
        warnings.warn(
            f"the report could not be made ({type(error).__name__}: {error}); "
            f"the run is not harmed: python -m longtag.report {folder} tries again",
            stacklevel=2,
        )


def _log(logger: WandbLogger, document: Document, pngs: dict[str, bytes]) -> None:
    captions = {picture.name: picture.caption for picture in document.pictures}
    media: dict[str, object] = {
        f"report/{name}": wandb.Image(Image.open(BytesIO(png)), caption=captions[name]) for name, png in pngs.items()
    }
    for table in (document.table, *document.more):
        rows = [[cell.value for cell in row] for row in table.rows]
        # A column holds one type in W&B, and nothing is no number.
        data = [[None if value == "" else value for value in row] for row in rows]
        media[f"report/{table.name}"] = wandb.Table(columns=list(table.heads), data=data)
    logger.log_metrics(media)  # pyright: ignore[reportArgumentType]
    # Waits for loggers that send in a thread of their own: the W&B run is about to be closed.
    logger.finalize("success")
