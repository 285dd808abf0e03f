"""Which GPUs there are, and who of the jobs has them."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch


def visible_gpus() -> list[str]:
    """The GPUs of this machine as CUDA_VISIBLE_DEVICES names them, fewer where it is set already."""
    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else map(str, range(count))
    return list(names)[:count]


def gpus_wanted(trainer: Any, available: int) -> int:
    """How many GPUs a job asks for: ``trainer.devices``, or all where it leaves that open or names them by number."""
    if trainer.accelerator == "cpu":
        return 0
    devices = int(trainer.devices) if str(trainer.devices).lstrip("-").isdigit() else available
    return available if devices < 0 else min(devices, available)


class Places:
    """Places for jobs: so many at once, and a GPU for one job at a time unless more jobs than GPUs are asked for.

    Args:
        gpus: the GPUs to share out; empty on a machine without any.
        jobs_at_once: jobs that run at the same time; None for one a GPU, or one where there is none.
    """

    def __init__(self, gpus: Sequence[str], jobs_at_once: int | None = None) -> None:
        self.jobs_at_once = jobs_at_once or max(1, len(gpus))
        self.num_gpus = len(gpus)
        self._jobs_a_gpu = math.ceil(self.jobs_at_once / len(gpus)) if gpus else 0
        self._load = Counter(dict.fromkeys(gpus, 0))
        self._taken = 0

    def take(self, gpus_wanted: int) -> list[str] | None:
        """A place with so many GPUs, those with the fewest jobs; None if it is not free now."""
        free = sorted((gpu for gpu in self._load if self._load[gpu] < self._jobs_a_gpu), key=self._load.__getitem__)
        if self._taken == self.jobs_at_once or len(free) < gpus_wanted:
            return None
        self._taken += 1
        taken = free[:gpus_wanted]
        self._load.update(taken)
        return taken

    def give_back(self, gpus: Sequence[str]) -> None:
        self._taken -= 1
        self._load.subtract(gpus)
