"""Tensors that a node of the graph reads in backward, made again when it does so instead of kept for it.

Torch's checkpointing runs a function again as a whole. Where the dear part of it, such as attention, comes last, this
recomputes its inputs alone: the node keeps its outputs, and finds its inputs when its own gradient needs them. It needs
to know nothing of what computes the node, be it a kernel, an operator of torch, or plain torch.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from longtag.memory.offload import kept


@contextlib.contextmanager
def made_again(tensor: Tensor, make: Callable[[], Tensor]) -> Iterator[None]:
    """Of what is saved for backward inside, nothing holds the memory of `tensor`.

    tensor: what the nodes inside read, as it is or in views.
    make:   the same tensor once more; run without gradients, under the autocast of now, at the first need. The result
            is let go when all nodes that read it have done so.
    """
    remade = _Remade(tensor, make)

    def pack(saved: Tensor) -> Any:
        return remade.note(saved) if _memory(saved) == remade.memory else kept(saved)

    def unpack(packed: Any) -> Tensor:
        return remade.view(packed) if isinstance(packed, _View) else packed()

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield


class _View(NamedTuple):
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Remade:
    def __init__(self, tensor: Tensor, make: Callable[[], Tensor]) -> None:
        self.memory = _memory(tensor)
        self._make = make
        self._device_type = tensor.device.type
        self._autocast = {
            "enabled": torch.is_autocast_enabled(self._device_type),
            "dtype": torch.get_autocast_dtype(self._device_type),
        }
        self._num_views = self._num_read = 0
        self._tensor: Tensor | None = None

    def note(self, saved: Tensor) -> _View:
        self._num_views += 1
        return _View(saved.shape, saved.stride(), int(saved.storage_offset()))

    def view(self, view: _View) -> Tensor:
        if self._tensor is None:
            # Without autocast's cache, whose casts made without gradients would serve later calls that need them.
            with torch.no_grad(), torch.autocast(self._device_type, **self._autocast, cache_enabled=False):
                self._tensor = self._make()
        seen = self._tensor.as_strided(*view)
        self._num_read += 1
        if self._num_read % self._num_views == 0:
            self._tensor = None
        return seen


def _memory(tensor: Tensor) -> int:
    """The identity of a tensor's memory, which tensors without data have as well."""
    return tensor.untyped_storage()._cdata
