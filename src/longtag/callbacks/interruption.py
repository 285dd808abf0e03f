"""Ctrl-C and SIGTERM: finish the step, save the last checkpoint, leave with the exit code that the shell expects."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class Interrupted(Exception):
    """Training was asked to stop and has saved what it had; ``exit_code`` is 128 + the signal's number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; the last checkpoint is saved")
        self.exit_code = 128 + signal_number


class Interruption(Callback):
    """On the first SIGINT or SIGTERM, saves at the end of a step and raises Interrupted; on a second one, quits.

    A validation that runs is finished first, for half a validation cannot be gone on with.

    Args:
        checkpoint: the file to save to.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._received: int | None = None
        self._saved = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._received is not None:
            trainer.save_checkpoint(self.checkpoint)
            self._saved = True

    # Leaving waits for the next hook, so that the figures of the saved step reach the loggers.
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._leave_if_saved()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._leave_if_saved()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._leave_if_saved()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _leave_if_saved(self) -> None:
        if self._saved:
            assert self._received is not None
            raise Interrupted(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number
        print("\nstopping: the running step is finished and saved; once more to stop at once", flush=True)
