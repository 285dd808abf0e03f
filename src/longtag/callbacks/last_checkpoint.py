"""The last checkpoint: what a run goes on from."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Saves after every validation, whether or not it was the best one.

    Lightning's ModelCheckpoint(save_last=True) saves the last state only where it is among the best as well.

    Args:
        path: the file to save to, replaced each time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            trainer.save_checkpoint(self.path)
