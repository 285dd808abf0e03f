"""Peak memory of every training step."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

GIB = 2**30


class MemoryMonitor(Callback):
    """Logs the peak of each step: on CUDA what tensors took and what the allocator held, elsewhere resident memory.

    Keys: ``memory/peak_allocated_gib`` and ``memory/peak_reserved_gib``, or ``memory/peak_rss_gib``.
    """

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        reset_peak(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.log_dict(peak_gib(pl_module.device), on_step=True, on_epoch=False)


def reset_peak(device: torch.device) -> None:
    """Start a new peak at what is in use now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak_rss()


def peak_gib(device: torch.device) -> dict[str, float]:
    """The peak since the last reset, in GiB, under the keys that are logged."""
    if device.type == "cuda":
        return {
            "memory/peak_allocated_gib": torch.cuda.max_memory_allocated(device) / GIB,
            "memory/peak_reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
        }
    return {"memory/peak_rss_gib": _peak_rss_bytes() / GIB}


def _reset_peak_rss() -> None:
    # Linux: "5" sets the process's high-water mark back to what is resident now (proc(5), clear_refs).
    Path("/proc/self/clear_refs").write_text("5")


def _peak_rss_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM line: peak memory on the CPU is read from Linux's proc")
