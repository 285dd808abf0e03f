"""Which layer makes the first number that is not finite: found by running a batch once more, with every layer watched.

Nothing is watched while training goes well.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from longtag.loss import mean
from longtag.tagger import Batch, Tagger


def find_fault(tagger: Tagger, batch: Batch) -> str | None:
    """Run forward, loss and backward over a batch and say what is not finite first; None if all is.

    In this order: the inputs, the weights, the output of a layer, the loss, the gradient of a weight in the order in
    which backward comes to them. Gradients that lie in the parameters are lost, and no weight is changed.
    """
    if not _finite(batch["inputs"]):
        return "the inputs are not finite"
    for name, parameter in tagger.model.named_parameters():
        if not _finite(parameter):
            return f"the weight {name} was not finite before the step"
    tagger.zero_grad(set_to_none=True)
    # Uncompiled: compiled code does not call hooks that come after it.
    with ExitStack() as hooks, torch.compiler.set_stance("force_eager"):
        layers = _watch_outputs(tagger.model, hooks)
        gradients = _watch_gradients(tagger.model, hooks)
        cost, weight = tagger.cost_and_weight(batch)
        if layers:
            return f"the first layer that makes a number that is not finite is {layers[0]}"
        if not _finite(cost):
            return "the outputs of all layers are finite, their loss is not"
        mean(cost, weight).backward()
    tagger.zero_grad(set_to_none=True)
    return gradient_fault(gradients)


def gradient_fault(names: list[str]) -> str | None:
    """The words for weights whose gradients are not finite, in the order in which backward comes to them."""
    if not names:
        return None
    others = f", and {len(names) - 1} more after it" if len(names) > 1 else ""
    return f"the first gradient that is not finite is that of {names[0]}{others}"


def non_finite_gradients(model: nn.Module) -> list[str]:
    """Names of the weights whose gradient is not finite, from the output to the input."""
    gradients = [(name, weight.grad) for name, weight in model.named_parameters() if weight.grad is not None]
    return [name for name, gradient in reversed(gradients) if not _finite(gradient)]


def _watch_outputs(model: nn.Module, hooks: ExitStack) -> list[str]:
    """A list that fills with the names of modules that give something that is not finite, the innermost first."""
    found: list[str] = []

    def watch(name: str, module: nn.Module) -> None:
        owner, _, child = name.rpartition(".")

        def look(_: nn.Module, inputs: Any, output: Any) -> None:
            if not all(map(_finite, _tensors(inputs))):
                found.append(f"{owner or 'the model'}, in what its {child} reads")
            elif not all(map(_finite, _tensors(output))):
                found.append(name)

        hooks.callback(module.register_forward_hook(look).remove)

    for name, module in model.named_modules():
        if name:
            watch(name, module)
    return found


def _watch_gradients(model: nn.Module, hooks: ExitStack) -> list[str]:
    """A list that fills with the names of weights whose gradient is not finite, in the order of backward."""
    found: list[str] = []

    def watch(name: str, weight: nn.Parameter) -> None:
        def look(ready: Tensor) -> None:
            if ready.grad is not None and not _finite(ready.grad):
                found.append(name)

        hooks.callback(weight.register_post_accumulate_grad_hook(look).remove)

    for name, weight in model.named_parameters():
        if weight.requires_grad:
            watch(name, weight)
    return found


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
