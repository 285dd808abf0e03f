"""A side stream as slow as can be, so that a race on a GPU is an error on a CPU."""

import weakref
from collections import deque

import torch
from torch import Tensor

from longtag.memory.pinned_pool import PinnedPool

POISON = 255
"""A byte of which all floating dtypes make NaN."""


class PlainBlock:
    def __init__(self, num_bytes: int) -> None:
        self.data = torch.full((num_bytes,), POISON, dtype=torch.uint8)


class LateCopies:
    """A copy takes place at the very moment at which somebody waits for it, and after those asked for before it.

    It looks at memory on the device as a stream does: whoever frees or uses it too early, reads or leaves NaN behind,
    and is listed in `faults`.

    log: "send", "fetch" and "wait" with the number of the copy, in the order in which they were asked for.
    """

    def __init__(self) -> None:
        self.pool = PinnedPool(drain=self.run_all, allocate=PlainBlock, available=lambda: 2**40)
        self.faults: list[str] = []
        self.log: list[tuple[str, int]] = []
        self._queue: deque[tuple[int, weakref.ref[Tensor], Tensor, bool]] = deque()
        self._num_copies = 0

    def send(self, data: Tensor, soon: int) -> tuple[Tensor, int]:
        host = self.pool.take(data.numel(), soon=soon)
        return host, self._ask("send", data, host)

    def fetch(self, host: Tensor) -> tuple[Tensor, int]:
        data = torch.full_like(host, POISON)
        return data, self._ask("fetch", data, host)

    def wait(self, done: int) -> None:
        self.log.append(("wait", done))
        while self._queue and self._queue[0][0] <= done:
            self._run_next()

    def give_back(self, host: Tensor) -> None:
        self.pool.give_back(host)

    def run_all(self) -> None:
        while self._queue:
            self._run_next()

    def _ask(self, kind: str, data: Tensor, host: Tensor) -> int:
        self._num_copies += 1
        self.log.append((kind, self._num_copies))
        self._queue.append((self._num_copies, weakref.ref(data), host, kind == "send"))
        return self._num_copies

    def _run_next(self) -> None:
        number, reference, host, sends = self._queue.popleft()
        data = reference()
        if data is None:
            self.faults.append(f"copy {number} met memory on the device that was freed")
        elif sends:
            host.copy_(data)
        else:
            data.copy_(host)

    def count(self, kind: str) -> int:
        return sum(entry == kind for entry, _ in self.log)
