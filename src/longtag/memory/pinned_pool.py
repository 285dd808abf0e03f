"""Host memory that a device reads and writes by itself: pinned once, and used again step after step.

Torch's own pinned allocator rounds each block up to a power of two, so that a boundary of 1.43 GiB would take 2. Here
pages are mapped and registered in the size asked for.
"""

import contextlib
import mmap
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from longtag.errors import UsageError

GIB = 2**30
LEFT_TO_OTHERS = GIB
"""Host memory that is not pinned, because pinned pages cannot be swapped out when other programs need some."""

_WAY_OUT = "give memory.checkpoint_every=2 or more, memory.residual=bfloat16, fewer tokens, or memory.offload=false"


class Block(Protocol):
    """Owns host memory, and frees it when it dies."""

    data: Tensor
    """uint8, one dimension."""


class PinnedBlock:
    """Page-locked memory of exactly `num_bytes`. Raises UsageError where the driver cannot lock that much."""

    def __init__(self, num_bytes: int) -> None:
        pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Large pages are fewer to lock. A process that is forked, as workers of a data loader are, would be given a
        # copy of every pinned page. Kernels that cannot follow such advice say so.
        for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_DONTFORK):
            with contextlib.suppress(OSError):
                pages.madvise(advice)
        self.data = torch.frombuffer(pages, dtype=torch.uint8)
        address, portable = self.data.data_ptr(), 1
        driver: Any = torch.cuda.cudart()
        status = driver.cudaHostRegister(address, num_bytes, portable)
        if int(status) != 0:
            raise UsageError(
                f"memory.offload=true: the driver cannot pin {num_bytes / GIB:.2f} GiB of host memory ({status}); "
                f"{_WAY_OUT}, or lift the limit on locked memory (ulimit -l)"
            )
        # The pages are held until then.
        weakref.finalize(self, lambda _: driver.cudaHostUnregister(address), pages)


class PinnedPool:
    """Buffers of host memory, taken and given back.

    A buffer that was given back may still be read or written by copies that are under way: whoever takes it next must
    queue behind these.

    drain:     waits for all copies from and to buffers that were given back; called before one is freed, which is rare.
    allocate:  makes a block of so many bytes.
    available: bytes that the host can spare.
    """

    def __init__(
        self,
        *,
        drain: Callable[[], None],
        allocate: Callable[[int], Block] = PinnedBlock,
        available: Callable[[], int] | None = None,
    ) -> None:
        self._drain = drain
        self._allocate = allocate
        self._available = available or available_bytes
        self._free: list[Block] = []
        self._taken: dict[int, Block] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of all buffers, taken or not."""
        return sum(block.data.numel() for block in (*self._free, *self._taken.values()))

    def take(self, num_bytes: int, *, soon: int = 0) -> Tensor:
        """A buffer of `num_bytes`, uint8: the smallest that fits, or a new one.

        soon: bytes that will be taken as well before this buffer comes back. Raises UsageError, before any memory is
              asked for, where the host does not have them.
        """
        fitting = [block for block in self._free if block.data.numel() >= num_bytes]
        if fitting:
            block = min(fitting, key=lambda block: block.data.numel())
            self._free.remove(block)
        else:
            self._free_one()
            self._check(num_bytes + soon - sum(block.data.numel() for block in self._free), num_bytes)
            block = self._allocate(num_bytes)
        self._taken[block.data.data_ptr()] = block
        return block.data[:num_bytes]

    def give_back(self, buffer: Tensor) -> None:
        """May be called from any thread, and when a graph is freed in the middle of `take`."""
        self._free.append(self._taken.pop(buffer.data_ptr()))

    def _free_one(self) -> None:
        """All that are free are too small: one makes room, so that lengths that grow do not add up."""
        if self._free:
            self._drain()
            self._free.pop()

    def _check(self, missing: int, num_bytes: int) -> None:
        available = self._available() - LEFT_TO_OTHERS
        if missing > available:
            raise UsageError(
                f"memory.offload=true: needs {missing / GIB:.2f} GiB more host memory, {num_bytes / GIB:.2f} GiB a "
                f"boundary, and {max(0, available) / GIB:.2f} GiB can be spared; {_WAY_OUT}"
            )


def available_bytes() -> int:
    """Host memory that can be had without swapping, within the limit of the control group (Linux)."""
    available = 1024 * _field(Path("/proc/meminfo"), "MemAvailable:")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        # Pages of files count as used, and are let go when memory is asked for.
        return min(available, limit - used + _field(group / "memory.stat", "inactive_file"))
    except (OSError, ValueError):
        # No group, or one without a limit, which reads "max".
        return available


def _field(path: Path, name: str) -> int:
    return next(int(value) for key, value, *_ in map(str.split, path.read_text().splitlines()) if key == name)
