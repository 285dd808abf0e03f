"""How much of every step was spent waiting for its data."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from longtag.data.timed_loader import TimedLoader


class DataWait(Callback):
    """Logs ``data/wait_share``: of the time since the step before, the share in which the next batch was fetched.

    With ``crops.num_workers=0`` that is the reading of the crop, with more it is what the workers are late by.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_end, self._waited_before = time.perf_counter(), self._seconds_waited(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last_end = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, waited = time.perf_counter(), self._seconds_waited(trainer)
        share = (waited - self._waited_before) / (now - self._last_end)
        self._last_end, self._waited_before = now, waited
        pl_module.log_dict({"data/wait_share": share}, on_step=True, on_epoch=False)

    @staticmethod
    def _seconds_waited(trainer: L.Trainer) -> float:
        loader = trainer.train_dataloader
        assert isinstance(loader, TimedLoader)
        return loader.seconds_waited
