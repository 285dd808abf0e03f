"""The figures and tables of a report as W&B and TensorBoard take them."""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import wandb
from PIL import Image

from longtag.report.document import Document
from longtag.report.tables import as_markdown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def as_wandb(document: Document, pngs: Mapping[str, bytes]) -> dict[str, object]:
    """Images and tables to log, by their keys `report/<name>`.

    pngs: the figures of the document, by name.
    """
    captions = {picture.name: picture.caption for picture in document.pictures}
    media: dict[str, object] = {
        f"report/{name}": wandb.Image(Image.open(BytesIO(png)), caption=captions[name]) for name, png in pngs.items()
    }
    for table in document.tables:
        rows = [[cell.value for cell in row] for row in table.rows]
        # A column holds one type in W&B, and nothing is no number.
        data = [[None if value == "" else value for value in row] for row in rows]
        media[f"report/{table.name}"] = wandb.Table(columns=list(table.heads), data=data)
    return media


def add_to_tensorboard(writer: "SummaryWriter", document: Document, pngs: Mapping[str, bytes], step: int) -> None:
    """Add every figure as an image and every table as text, under `report/<name>`."""
    for name, png in pngs.items():
        pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB"))
        writer.add_image(f"report/{name}", pixels, step, dataformats="HWC")
    for table in document.tables:
        writer.add_text(f"report/{table.name}", f"{table.caption}\n\n{as_markdown(table)}", step)
