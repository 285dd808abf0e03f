"""Ctrl-C, SIGTERM and a queue's warning: finish the step, save the last checkpoint, leave as whoever asked expects."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Callback

WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm is told to send some time before it ends a job; submitit queues the job again when it comes."""


class Interrupted(Exception):
    """Training was asked to stop and has saved what it had."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; the last checkpoint is saved")
        self.signal_number = signal_number

    def leave(self) -> NoReturn:
        """End the process: with 128 + the signal's number, or as the handler says that a queue has for its warning."""
        if self.signal_number in WARNINGS and callable(signal.getsignal(self.signal_number)):
            signal.raise_signal(self.signal_number)
        raise SystemExit(128 + self.signal_number)


class Interruption(Callback):
    """On the first SIGINT, SIGTERM or warning, saves at the end of a step and raises Interrupted; on a second, quits.

    A validation that runs, or is due after the step, is finished first: half of one cannot be gone on with, and one
    that is left out would never be made up for. The batches of one step stay together. The warnings are left alone
    where several processes train together: they come at different steps, and saving waits for all.

    In a process that Slurm started, SIGTERM saves and the run goes on: Slurm sends it ahead of the end, and a preempted
    job that has left before that is not queued again.

    Args:
        checkpoint: the file to save to.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self._received: int | None = None
        self._to_save = False
        self._saved = False
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, *(WARNINGS if trainer.world_size == 1 else ())):
            self._previous[number] = signal.signal(number, self._receive)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._to_save and (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.checkpoint)
            self._to_save, self._saved = False, self._received is not None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._to_save and trainer.state.fn == "fit":
            # `LastCheckpoint`, whose turn is next, saves.
            self._to_save, self._saved = False, self._received is not None

    # Leaving waits for the next hook, so that the figures of the saved step reach the loggers.
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
        self._to_save = True
        if _slurm_started_this() and number == signal.SIGTERM:
            print("\nsaving: the running step is finished and saved; the run goes on until Slurm ends it", flush=True)
            return
        self._received = number
        print("\nstopping: the running step or validation is finished and saved; once more to stop now", flush=True)


def _slurm_started_this() -> bool:
    """Whether this is a task of a Slurm job; what that starts, such as the jobs of a sweep, is told by it to stop."""
    return os.environ.get("SLURM_TASK_PID") == str(os.getpid())
