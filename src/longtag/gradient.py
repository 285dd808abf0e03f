"""The norm of all gradients together, and clipping by it or by value."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


def clip_gradients(parameters: Iterable[Parameter], limit: float | None, algorithm: str | None) -> Tensor | None:
    """Clip in place and return the norm that was found, a scalar on the device; None where there is no gradient.

    limit:     largest norm, or largest magnitude of an element; None: no clipping.
    algorithm: "norm" or "value".

    By a norm that is not finite nothing is divided: all would be lost, and with it the trace of where it began.
    """
    parameters = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return None
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit is None:
        return norm
    if algorithm == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    else:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, torch.where(norm.isfinite(), norm, 0.0))
    return norm
