"""Boundaries in host memory: what checkpointing keeps leaves the device in forward, and is back in time in backward.

A stage is what is recomputed together, and its boundaries are what it keeps. In forward they are copied to the host
while their stage and the next one run, and then let go. In backward the boundaries of a stage come back while the stage
behind it is recomputed, or from `previous_comes_behind` on, where that stage names such a place. So there is, of stages
that do not run just now, the memory of one on the device. The last two stages keep their boundaries: at the start of
backward these would have to be there anyway.
"""

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor

from longtag.memory.copies import Copies, copies_for

STAYING = 2
"""Last stages whose boundaries stay on the device."""
LEAVING = 2
"""Stages, the one that runs among them, of which copies to the host may be under way."""

_RUNNING: ContextVar["_Stage | None"] = ContextVar("running", default=None)


def kept(tensor: Tensor) -> Callable[[], Tensor]:
    """What gives the tensor again in backward: from the host where it is a boundary of the stage that runs just now.

    A boundary is a tensor that fills its memory, and has as many elements as what enters the stage: that itself, and
    in selective checkpointing the attention output. Its views go with it.
    """
    stage = _RUNNING.get()
    return _kept_here(tensor) if stage is None else stage.keep(tensor)


def previous_comes_behind(tensor: Tensor) -> None:
    """In backward, let the stage before send for its boundaries when the gradient of `tensor` is there, and not before.

    For a place where most memory is free again and the backward of the stage is long enough to hide a copy.
    """
    stage = None if torch.compiler.is_compiling() else _RUNNING.get()
    if stage is not None and tensor.requires_grad:
        stage.call_previous_behind(tensor)


def _kept_here(tensor: Tensor) -> Callable[[], Tensor]:
    # Detached: a node of the graph that held its own output would never be freed.
    return partial(_itself, tensor.detach())


def _itself(tensor: Tensor) -> Tensor:
    return tensor


class Offload:
    """One forward pass through `num_stages` stages, each run inside of ``with offload.stage(x)``.

    Holds for any order of backward passes, for several through one graph, and for graphs that are dropped halfway.
    Where tensors lie in host memory as it is, nothing happens.
    """

    def __init__(self, num_stages: int) -> None:
        self._num_to_come = num_stages
        self._leaving: deque[list[_Boundary]] = deque()
        self._previous: weakref.ref[_Stage] | None = None

    @contextlib.contextmanager
    def stage(self, x: Tensor) -> Iterator[None]:
        """What autograd saves inside is `kept`. x: what enters the stage."""
        copies = copies_for(x)
        if copies is None:
            yield
            return
        self._num_to_come -= 1
        if len(self._leaving) == LEAVING:
            for boundary in self._leaving.popleft():
                boundary.leave()
        stage = _Stage(x, copies, self._previous, num_leaving=self._num_to_come - STAYING + 1)
        self._previous = weakref.ref(stage)
        token = _RUNNING.set(stage)
        try:
            with torch.autograd.graph.saved_tensors_hooks(stage.keep, lambda again: again()):
                yield
        finally:
            _RUNNING.reset(token)
            self._leaving.append(stage.end())


class _Stage:
    """num_leaving: stages from this one on whose boundaries leave the device; below 1, those of this one stay."""

    def __init__(self, x: Tensor, copies: Copies, previous: "weakref.ref[_Stage] | None", *, num_leaving: int) -> None:
        self._num_elements, self._device = x.numel(), x.device
        self.copies = copies
        self._previous = previous
        self._num_leaving = num_leaving
        # Boundaries hold their stage, and not the other way round: a cycle would outlive its graph.
        self._boundaries: list[weakref.ref[_Boundary]] = []
        self._by_memory: dict[int, _Boundary] = {}
        self._calls_late = False

    def keep(self, tensor: Tensor) -> Callable[[], Tensor]:
        # Views of one memory are one boundary. While the stage runs it holds the memory, whose address is so its own.
        memory = tensor.untyped_storage()._cdata
        boundary = self._by_memory.get(memory)
        if boundary is None:
            if not self._is_boundary(tensor):
                return _kept_here(tensor)
            boundary = self._by_memory[memory] = _Boundary(tensor, self, self._bytes_soon(tensor))
            self._boundaries.append(weakref.ref(boundary))
        return boundary.view(tensor)

    def _is_boundary(self, tensor: Tensor) -> bool:
        fills = tensor.untyped_storage().nbytes() == self._num_elements * tensor.element_size()
        return fills and tensor.is_floating_point() and tensor.device == self._device

    def _bytes_soon(self, tensor: Tensor) -> int | None:
        """What the stages to come will send if they send as much as this one; None where nothing is sent."""
        if self._num_leaving < 1:
            return None
        sent = tensor.untyped_storage().nbytes() + sum(boundary.num_bytes for boundary in self._by_memory.values())
        return sent * (self._num_leaving - 1)

    def end(self) -> "list[_Boundary]":
        boundaries = list(self._by_memory.values())
        self._by_memory.clear()
        return boundaries

    def call_previous_behind(self, tensor: Tensor) -> None:
        self._calls_late = True
        tensor.register_hook(lambda _: self._call_previous())

    def is_read(self) -> None:
        """Backward has come to this stage."""
        if not self._calls_late:
            self._call_previous()

    def _call_previous(self) -> None:
        """Have the boundaries that backward needs next on their way."""
        previous = self._previous and self._previous()
        for reference in previous._boundaries if previous else ():
            boundary = reference()
            if boundary is not None:
                boundary.come()


class _Boundary:
    """soon: bytes that are sent after this one and before any return; None lets the boundary stay on the device."""

    def __init__(self, tensor: Tensor, stage: _Stage, soon: int | None) -> None:
        self._stage = stage
        self._copies = stage.copies
        self.num_bytes = tensor.untyped_storage().nbytes()
        self._num_views = self._num_read = 0
        num_elements = self.num_bytes // tensor.element_size()
        self._data: Tensor | None = tensor.detach().as_strided((num_elements,), (1,), 0).view(torch.uint8)
        self._host: Any = None
        # The end of a copy that reads or writes `_data`.
        self._done: Any = None
        if soon is not None:
            self._host, self._done = self._copies.send(self._data, soon)

    def view(self, tensor: Tensor) -> Callable[[], Tensor]:
        self._num_views += 1
        return partial(self._read, tensor.dtype, tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def leave(self) -> None:
        """Let go of the memory on the device."""
        if self._host is not None:
            self._settle()
            self._data = None

    def come(self) -> None:
        """Be on the way to the device, or there."""
        if self._data is None:
            self._data, self._done = self._copies.fetch(self._host)

    def _read(self, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        self.come()
        self._settle()
        self._stage.is_read()
        assert self._data is not None
        seen = self._data.view(dtype).as_strided(shape, stride, offset)
        self._num_read += 1
        if self._num_read % self._num_views == 0:
            # Whoever reads holds the memory from here on. A further backward pass fetches it again.
            self.leave()
        return seen

    def _settle(self) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            self._copies.wait(done)

    def __del__(self) -> None:
        # Also for a graph that is dropped while a copy is under way: its memory may not be used before the copy ends.
        self.leave()
        if self._host is not None:
            self._copies.give_back(self._host)
