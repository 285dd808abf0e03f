"""Tensors of a layout are saved for backward, also those that are made in a validation under `torch.inference_mode`."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_normal_mode(function: Callable[P, R]) -> Callable[P, R]:
    """The function with `inference_mode` off while it runs, so that autograd may save what it makes."""

    @wraps(function)
    def with_mode_off(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() or not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False):
            return function(*args, **kwargs)

    return with_mode_off


def as_normal(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made under `inference_mode`; to be called with the mode off."""
    return tensor.clone() if not torch.compiler.is_compiling() and tensor.is_inference() else tensor
