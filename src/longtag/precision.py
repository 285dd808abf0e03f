"""In which precision a run computes: weights in 16 bits, and what is left of float32 on a GPU."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import nn

from longtag.tagger import Tagger

MatmulPrecision = Literal["highest", "high", "medium"]


class NarrowModel(HalfPrecision):
    """Lightning's bf16-true and 16-true for the model alone.

    Lightning converts losses and scores as well, and makes 16 bits torch's default: sums over tokens would stand still
    at 256, and class weights be rounded.
    """

    def convert_module(self, module: nn.Module) -> nn.Module:
        """The model of a tagger in 16 bits; what it is scored by as it was."""
        assert isinstance(module, Tagger)
        module.model.to(self._desired_input_dtype)
        return module

    def forward_context(self) -> contextlib.AbstractContextManager[None]:
        """Torch's own default dtype."""
        return contextlib.nullcontext()


def weights_are_narrow(precision: str) -> bool:
    """Whether one of Lightning's precisions keeps the weights themselves in 16 bits."""
    return precision in ("bf16-true", "16-true")


@contextlib.contextmanager
def float32_products(precision: MatmulPrecision, device: torch.device) -> Iterator[None]:
    """Inside, torch's products of float32 matrices on a GPU are as precise as this; elsewhere they are exact.

    precision: "highest" is float32, "high" TF32 (10 bits behind the point, sums in float32), "medium" bfloat16.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
