"""Bytes of tensors over one training step, kept apart by what they are and by the layer that runs."""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longtag.memory.estimate.cost import Cost, cost_of

ALLOCATION_UNIT = 512
"""torch's CUDA allocator rounds sizes up to this many bytes."""


class Level(NamedTuple):
    """Bytes alive. activations: left by forward for backward. temporary: neither these nor gradients."""

    gradients: int = 0
    activations: int = 0
    temporary: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    def plus(self, other: "Level") -> "Level":
        return Level(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Level") -> "Level":
        return Level(*(a - b for a, b in zip(self, other, strict=True)))


class Phase(NamedTuple):
    """What happens to memory while one layer runs forward, or backward. Levels are relative to where it begins."""

    layer: str
    peak: Level
    end: Level
    cost: Cost = Cost()

    @property
    def passing(self) -> int:
        """What is needed beyond the fuller one of beginning and end."""
        return self.peak.total - max(0, self.end.total)


class Ledger(TorchDispatchMode):
    """Inside ``with Ledger() as ledger``, books the memory of every tensor that operators make, until it is let go.

    Tensors that existed before are not booked. `begin` names the layer that is `running` from now on.
    Operators of sparse_attention are run as they are, launches of kernels left out, so that what they allocate for
    themselves is booked as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phases: list[Phase] = []
        self._now = [0, 0, 0]
        self._sizes: dict[int, int] = {}
        self._column: dict[int, int] = {}
        self._begin("")

    def begin(self, layer: str) -> None:
        """The phase so far ends, and another one begins."""
        peak, end = self._peak.minus(self._start), self._level.minus(self._start)
        self.phases.append(Phase(self.running, peak, end, self._cost))
        self._begin(layer)

    def end(self) -> list[Phase]:
        """The phases since the last call."""
        self.begin("")
        phases, self.phases = self.phases, []
        return [phase for phase in phases if phase.layer]

    def keep_for_backward(self) -> None:
        """Forward has ended: what is alive and no gradient are its activations."""
        for key, column in self._column.items():
            if column == 2:
                self._move(key, 1)

    def book_gradient(self, tensor: Tensor) -> None:
        """The memory of this tensor is a gradient's."""
        key = tensor.untyped_storage()._cdata
        if self._column.get(key, 0):
            self._move(key, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        for tensor in inputs:
            self._note(tensor, new=False)
        if func.namespace == "sparse_attention":
            with self:
                out = func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **kwargs)
        else:
            out = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in outputs:
            self._note(tensor, new=True)
        self._cost = self._cost.plus(cost_of(func, args, kwargs, inputs, outputs))
        return out

    @property
    def _level(self) -> Level:
        return Level(*self._now)

    def _begin(self, layer: str) -> None:
        self.running, self._start, self._cost = layer, self._level, Cost()
        self._peak, self._peak_total = self._start, self._start.total

    def _note(self, tensor: Tensor, *, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        # What an operator reads and none made was there before.
        size = -(-storage.nbytes() // ALLOCATION_UNIT) * ALLOCATION_UNIT if new else 0
        self._sizes[key], self._column[key] = size, 2
        weakref.finalize(storage, self._forget, key)
        if size:
            self._now[2] += size
            total = sum(self._now)
            if total > self._peak_total:
                self._peak, self._peak_total = self._level, total

    def _forget(self, key: int) -> None:
        self._now[self._column.pop(key)] -= self._sizes.pop(key)

    def _move(self, key: int, column: int) -> None:
        size = self._sizes[key]
        self._now[self._column[key]] -= size
        self._now[column] += size
        self._column[key] = column
