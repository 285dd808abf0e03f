"""An optimizer that steps each parameter as soon as its gradient is complete, and lets the gradient go at once."""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import ref

import torch
from torch import Tensor


class InBackward(torch.optim.Optimizer):
    """Put before an optimizer's class, makes it step inside of backward: no two gradients need exist at the same time.

    `step(closure)` runs the closure, and the backward in it steps the parameters; there is nothing left to do after it.
    Backward passes outside of `step` leave gradients as usual. State and groups are those of the optimizer, so that a
    checkpoint of the one serves the other. What needs all gradients together, such as clipping by their norm, or
    gradients of several backward passes, cannot be had with it.
    """

    def __init__(self, params: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__(params, **options)
        self._stepping = False
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(_step_of(self))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the closure, which must hold forward and backward. Raises ValueError without one."""
        if closure is None:
            raise ValueError("closure: in_backward=True steps while a closure runs backward; give step(closure)")
        self._stepping = True
        try:
            with torch.enable_grad():
                return closure()
        finally:
            self._stepping = False

    def _step_one(self, parameter: Tensor) -> None:
        if not self._stepping:
            return
        groups = self.param_groups
        group = next(group for group in groups if any(parameter is member for member in group["params"]))
        self.param_groups = [{**group, "params": [parameter]}]
        try:
            # Of the class behind this one: a scheduler counts the calls of the instance's own step.
            super().step()
        finally:
            self.param_groups = groups
        parameter.grad = None


def _step_of(optimizer: InBackward) -> Callable[[Tensor], None]:
    """The hook of a parameter. It does not own the optimizer, which owns the parameter: no garbage collector sees a
    cycle through a hook, and the model would stay in memory."""
    weak = ref(optimizer)

    def step(parameter: Tensor) -> None:
        alive = weak()
        if alive is not None:
            alive._step_one(parameter)

    return step
