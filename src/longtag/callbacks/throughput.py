"""Speed of every training step: tokens per second, milliseconds, share of the device's peak arithmetic."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from longtag.flops import training_flops
from longtag.peak_flops import peak_flops
from longtag.tagger import Tagger


class ThroughputMonitor(Callback):
    """Logs each step's duration, from the end of the step before, so that waiting for data counts.

    Keys: ``throughput/step_ms``, ``throughput/tokens_per_second``, ``throughput/tokens_seen`` and, where the device's
    peak is known, ``throughput/mfu``: arithmetic that the model needs (attended pairs, not N^2; no recomputation) per
    second over that peak (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
    """

    def __init__(self) -> None:
        self._last_end = 0.0
        self._tokens_seen = 0
        self._peak_flops: int | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._peak_flops = peak_flops(pl_module.device, str(trainer.precision))
        self._last_end = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._last_end = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Tagger, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        labels = batch["labels"]
        # Before the device is waited for, which has nothing to do from then on.
        needed = labels.shape[0] * training_flops(pl_module.model, labels.shape[-1]) if self._peak_flops else 0
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        now = time.perf_counter()
        seconds, self._last_end = now - self._last_end, now
        tokens = labels.numel() * trainer.world_size
        self._tokens_seen += tokens
        figures = {
            "throughput/step_ms": seconds * 1e3,
            "throughput/tokens_per_second": tokens / seconds,
            "throughput/tokens_seen": float(self._tokens_seen),
        }
        if self._peak_flops:
            figures["throughput/mfu"] = needed / seconds / self._peak_flops
        pl_module.log_dict(figures, on_step=True, on_epoch=False)

    def state_dict(self) -> dict[str, Any]:
        return {"tokens_seen": self._tokens_seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._tokens_seen = state_dict["tokens_seen"]
