"""The learning rate of every step."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class LearningRate(Callback):
    """Logs ``optim/learning_rate``, the rate that the step was taken with."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.log_dict({"optim/learning_rate": self._rate}, on_step=True, on_epoch=False)
