"""How busy the GPU is and what it draws, as the driver tells it."""

import threading
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from longtag.errors import UsageError


class DeviceMonitor(Callback):
    """Logs ``device/utilization`` (share of the time in which a kernel ran) and ``device/power_w`` (watts).

    A thread asks the driver now and then, and each step carries the latest answer. What the driver does not tell is
    absent; on the CPU that is both.

    Args:
        every_seconds: between two questions.
    """

    def __init__(self, *, every_seconds: float = 2.0) -> None:
        if every_seconds <= 0:
            raise UsageError(f"every_seconds={every_seconds}: expected a time above 0 seconds")
        self.every_seconds = every_seconds
        self._latest: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if pl_module.device.type != "cuda":
            return
        self._stop.clear()
        self._thread = threading.Thread(target=self._ask, args=(pl_module.device,), daemon=True)
        self._thread.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.log_dict(dict(self._latest), on_step=True, on_epoch=False)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _ask(self, device: torch.device) -> None:
        while not self._stop.wait(self.every_seconds):
            self._latest = read_driver(device)
            if not self._latest:
                return


def read_driver(device: torch.device) -> dict[str, float]:
    """What the driver tells of a GPU: utilization from 0 to 1, power in watts; without a driver library nothing."""
    answers = {}
    for name, ask, unit in (
        ("device/utilization", torch.cuda.utilization, 100),
        ("device/power_w", torch.cuda.power_draw, 1000),
    ):
        try:
            answers[name] = ask(device) / unit
        except Exception:  # NVML's own errors, or no pynvml at all: each says that there is no answer
            continue
    return answers
