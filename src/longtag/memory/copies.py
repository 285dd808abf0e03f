"""Copies between a device and the host, which run beside the computation."""

import functools
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from longtag.memory.pinned_pool import PinnedPool


class Copies(Protocol):
    """How the bytes of a tensor get to the host and back. Nothing here makes the host wait.

    `done` says when a copy has ended. Until `wait` was called with it, memory on the device that is read by the copy
    must not be freed, and memory that is written must be neither read nor freed.
    """

    def send(self, data: Tensor, soon: int) -> tuple[Any, Any]:
        """(host, done) for `data`, uint8 of one dimension.

        soon: bytes that will be sent as well before any of them is given back.
        """
        ...

    def fetch(self, host: Any) -> tuple[Tensor, Any]:
        """(data, done): what was sent, in new memory on the device."""
        ...

    def wait(self, done: Any) -> None:
        """All that is computed from now on comes after the copy."""
        ...

    def give_back(self, host: Any) -> None:
        """The host's copy is no longer needed, not even by copies that are yet to be asked for."""
        ...


def copies_for(tensor: Tensor) -> Copies | None:
    """What copies tensors like this one, or None where they are in host memory as it is."""
    if isinstance(tensor, FakeTensor) or tensor.is_meta:
        return WithoutData()
    if tensor.is_cuda:
        return side_stream(tensor.device)
    return None


class WithoutData:
    """For tensors that have shapes and no data: only what lies on the device has a tensor, so that it is counted."""

    def send(self, data: Tensor, soon: int) -> tuple[tuple[Tensor, int], None]:
        return (data.new_empty(0), data.numel()), None

    def fetch(self, host: tuple[Tensor, int]) -> tuple[Tensor, None]:
        like, num_bytes = host
        return like.new_empty(num_bytes), None

    def wait(self, done: None) -> None:
        pass

    def give_back(self, host: tuple[Tensor, int]) -> None:
        pass


class SideStream:
    """Copies on a CUDA stream of their own, from and to pinned memory.

    Why no copy meets memory that is used otherwise:

    - A copy begins when the stream of the computation has done what it was given before: what is sent has been
      computed by then, and whoever had the memory before a fetch has done with it.
    - Memory on the device belongs to the stream of the computation, on which it is allocated and freed. It is freed
      after `wait`, which orders that stream behind the copy; whoever gets the memory next runs there, and so later.
      (`record_stream` would do as well, but frees memory only when the host happens to see that the copy has ended:
      the host runs ahead of the device, and memory would pile up.)
    - Buffers on the host are touched by copies alone. All of them run on this one stream, in the order in which they
      were asked for, so that a buffer can be given back while copies from it are still under way.
    - Backward runs each node of a graph on the stream on which its forward ran, so that there is one stream of the
      computation.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = PinnedPool(drain=self.stream.synchronize)

    def send(self, data: Tensor, soon: int) -> tuple[Tensor, Any]:
        with torch.cuda.device(self.device):
            host = self.pool.take(data.numel(), soon=soon)
        return host, self._copy(data, host)

    def fetch(self, host: Tensor) -> tuple[Tensor, Any]:
        data = torch.empty(host.shape, dtype=torch.uint8, device=self.device)
        return data, self._copy(host, data)

    def _copy(self, source: Tensor, target: Tensor) -> tuple[Any, torch.cuda.Stream]:
        computation = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(computation)
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)
        return self.stream.record_event(), computation

    def wait(self, done: tuple[Any, torch.cuda.Stream]) -> None:
        # The stream on which the copy was asked for, and not the current one: a graph may be freed anywhere.
        event, computation = done
        computation.wait_event(event)

    def give_back(self, host: Tensor) -> None:
        self.pool.give_back(host)


@functools.cache
def side_stream(device: torch.device) -> SideStream:
    """One for each device, so that the models of a process share its buffers."""
    return SideStream(device)
