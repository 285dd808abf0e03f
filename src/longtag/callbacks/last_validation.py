"""Training ends with a validation, also where its last step is no multiple of the validation interval."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class LastValidation(Callback):
    """Asks for the validation that makes the last step a candidate for the best checkpoint."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
