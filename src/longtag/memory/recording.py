"""Two ways to record memory over a step: torch's CUDA allocator keeps a trace; elsewhere tensors are counted."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from longtag.memory.live_bytes import LiveBytes
from longtag.memory.timeline import Curve, curve_of_trace


class CountedTensors:
    """Bytes of tensors that are alive, by counting each operator: slow, for one step, on any device.

    Sees what LiveBytes sees: not what an operator takes for itself while it runs.
    """

    def __init__(self, existing: Iterable[Tensor]) -> None:
        self._times: list[int] = []
        self._bytes: list[int] = []
        self._live = LiveBytes(existing, on_change=self._note)
        self._live.__enter__()

    def stop(self) -> Curve:
        self._live.__exit__(None, None, None)
        return np.array(self._times, dtype=np.int64), np.array(self._bytes, dtype=np.int64)

    def _note(self, now: int) -> None:
        self._times.append(time.time_ns())
        self._bytes.append(now)


class AllocatorHistory:
    """Lets torch's CUDA allocator keep its last events, and hands them out.

    max_entries: how many; older ones are forgotten. About 200 bytes of the host's memory each.
    stacks:      note where in the Python code each tensor was made as well: some microseconds an event.
    """

    def __init__(self, device: torch.device, *, max_entries: int, stacks: bool) -> None:
        self._device = device
        torch.cuda.memory._record_memory_history(
            "all", context="alloc" if stacks else None, stacks="python", max_entries=max_entries
        )

    def snapshot(self) -> tuple[Curve, dict[str, Any]]:
        """The curve of the events kept, and torch's snapshot as https://pytorch.org/memory_viz reads it."""
        now = torch.cuda.memory.memory_stats_as_nested_dict(self._device)["requested_bytes"]["all"]["current"]
        snapshot: Any = torch.cuda.memory._snapshot()
        index = torch.cuda.current_device() if self._device.index is None else self._device.index
        return curve_of_trace(snapshot["device_traces"][index], now), snapshot

    def stop(self) -> None:
        torch.cuda.memory._record_memory_history(None)
