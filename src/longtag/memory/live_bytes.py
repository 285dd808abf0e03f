"""Bytes of tensors that are alive, counted from outside on any device, data or none."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside ``with LiveBytes() as live``, counts the memory of every tensor that operators make, until it is let go.

    Sees tensors and not what an allocator rounds them up to, nor what a kernel takes for itself while it runs. Tensors
    that existed before do not count, but for those that are given.

    now:  bytes alive.
    peak: the most that were alive after an operator.

    Args:
        existing: tensors whose memory counts from the start, until it is let go.
        on_change: called with the bytes alive each time they have changed.
    """

    def __init__(self, existing: Iterable[Tensor] = (), on_change: Callable[[int], object] = lambda now: None) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()
        self._on_change = on_change
        for tensor in existing:
            self._note(tensor, new=True)
        self.peak = self.now

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._note(tensor, new=False)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor, new=True)
        self.peak = max(self.peak, self.now)
        return out

    def _note(self, tensor: Tensor, *, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        # What an operator reads and none made was there before.
        size = storage.nbytes() if new else 0
        self._known.add(key)
        self._add(size)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._add(-size)

    def _add(self, size: int) -> None:
        if size:
            self.now += size
            self._on_change(self.now)
