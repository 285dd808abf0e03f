"""The mean over all tokens of an optimizer step, however many labels each of its batches has.

The mean of the means of batches would count a token of a sparsely labelled batch more than others. The right weights
are known only when the last batch has been seen, so gradients of costs are summed and divided at the step.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

Reduce = Callable[..., Tensor]
"""(tensor, reduce_op="sum") -> its sum over all devices, as Lightning's strategies do it."""


class MeanOverStep:
    """Adds up the costs of the batches of one optimizer step, and makes their gradient that of the mean.

    Batches may lie behind one another on one device or beside one another on several, whose gradients are averaged.
    """

    def __init__(self) -> None:
        self._weight: Tensor | None = None
        self._unit = 1

    def add(self, cost: Tensor, weight: Tensor, num_tokens: int) -> Tensor:
        """What to take the gradient of for one batch.

        cost, weight: as `TokenLoss.cost` and `TokenLoss.weight` give them.
        num_tokens:   labelled or not, the same on every device; keeps the gradients in the usual range until the step.
        """
        if self._weight is None:
            self._weight, self._unit = torch.zeros_like(weight), num_tokens
        self._weight = self._weight + weight
        return cost / self._unit

    def finish(self, parameters: Iterable[torch.nn.Parameter], reduce: Reduce, num_devices: int = 1) -> None:
        """Scale the gradients of all costs since the last step to that of their mean; without a label they are 0."""
        assert self._weight is not None
        weight = reduce(self._weight, reduce_op="sum")
        factor = self._unit * num_devices / torch.where(weight > 0, weight, 1.0)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        self._weight = None
