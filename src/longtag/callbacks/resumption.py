"""What Lightning does not restore by itself, so that a resumed run is the run that was never stopped."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback


class Resumption(Callback):
    """Random numbers go on where they were, so that dropout draws the same masks, and figures carry their own step."""

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._restored is None:
            return
        torch.set_rng_state(self._restored["cpu"].cpu())
        if len(self._restored["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in self._restored["cuda"]])
        self._restored = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # The step under which loggers write; a checkpoint of a validation outside of the interval holds one too few.
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # In the row of the last step, whether training has just ended or was over before.
        trainer.fit_loop.epoch_loop._batches_that_stepped = max(0, trainer.global_step - 1)
