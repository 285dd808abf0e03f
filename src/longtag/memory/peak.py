"""The peak of memory since it was last reset: of torch's allocator on CUDA, of the whole process elsewhere."""

from pathlib import Path
from typing import NamedTuple

import torch

GIB = 2**30


def has_allocator(device: torch.device) -> bool:
    """Whether an allocator of torch keeps account of the device; elsewhere only the process as a whole is known."""
    return device.type == "cuda"


def reset_peak(device: torch.device) -> None:
    """Start a new peak at what is in use now."""
    if has_allocator(device):
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # Linux: "5" sets the process's high-water mark back to what is resident now (proc(5), clear_refs).
        Path("/proc/self/clear_refs").write_text("5")


def peak_gib(device: torch.device) -> dict[str, float]:
    """The peak since the last reset, in GiB, under the keys that are logged."""
    if has_allocator(device):
        now = read_allocator(device)
        return {
            "memory/peak_allocated_gib": now.peak_allocated / GIB,
            "memory/peak_reserved_gib": now.peak_reserved / GIB,
        }
    return {"memory/peak_rss_gib": _peak_rss_bytes() / GIB}


class Allocator(NamedTuple):
    """What torch's CUDA allocator says of itself: bytes, and counts since the process began."""

    allocated: int
    peak_allocated: int
    peak_reserved: int
    retries: int
    """Allocations that succeeded only after cached memory had been given back: each stops the device."""
    failures: int
    """Allocations that did not succeed: out of memory."""


def read_allocator(device: torch.device) -> Allocator:
    """Read on the host, in some microseconds; the device is not waited for."""
    # Nested: torch.cuda.memory_stats would flatten and sort a hundred entries each time.
    stats = torch.cuda.memory.memory_stats_as_nested_dict(device)
    allocated = stats["allocated_bytes"]["all"]
    return Allocator(
        allocated["current"],
        allocated["peak"],
        stats["reserved_bytes"]["all"]["peak"],
        stats["num_alloc_retries"],
        stats["num_ooms"],
    )


def _peak_rss_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM line: peak memory on the CPU is read from Linux's proc")
