"""What stands in memory from step to step, counted: weights, gradients, optimizer states."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils._pytree import tree_leaves


class Standing:
    """Counts bytes of tensors on one device, as they are and not as an allocator rounds them up.

    weights: parameters and buffers of the model, and of copies of it that are kept beside it, counted once.
    """

    def __init__(
        self, model: nn.Module, optimizers: Sequence[Optimizer], device: torch.device, copies: Sequence[nn.Module] = ()
    ) -> None:
        self._device = device
        self._parameters = list(model.parameters())
        self._optimizers = optimizers
        self.weights = sum(self._bytes_of([*each.parameters(), *each.buffers()]) for each in (model, *copies))
        self._num_states = self._states = 0

    def gradients(self, parameters: Iterable[nn.Parameter] | None = None) -> int:
        """Those that exist now, of all parameters or of these."""
        parameters = self._parameters if parameters is None else parameters
        return sum(each.grad.nbytes for each in parameters if each.grad is not None)

    def optimizer_states(self) -> int:
        """What the optimizers hold for their parameters; nothing before the first step."""
        entries = [states for optimizer in self._optimizers for states in optimizer.state.values()]
        num_states = sum(map(len, entries))
        # Optimizers make their states once and keep them: going through all of them each time would be for nothing.
        if num_states != self._num_states:
            self._num_states = num_states
            self._states = self._bytes_of(entries)
        return self._states

    def _bytes_of(self, nested: Any) -> int:
        """Of all tensors in lists, tuples and dicts in one another."""
        tensors = (leaf for leaf in tree_leaves(nested) if isinstance(leaf, Tensor))
        return sum(_bytes(tensor) for tensor in tensors if tensor.device.type == self._device.type)


def _bytes(tensor: Tensor) -> int:
    """Of a tensor that wraps others, as quantized ones do, those of the others."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return sum(_bytes(getattr(tensor, name)) for name in names)
    return tensor.nbytes
