"""Where the fused parts can run."""

from importlib.util import find_spec

import torch
from torch import Tensor

WIDEST = 8192
"""Features of a row that one program holds in registers."""

IS_INSTALLED = find_spec("triton") is not None


def why_not(x: Tensor) -> str | None:
    """Why the fused kernels cannot take the rows of x, (..., d), or None when they can."""
    if x.device.type == "cpu":
        return "it needs a GPU, and the model is on the CPU"
    if not IS_INSTALLED:
        return "the package triton is not installed"
    if torch.compiler.is_compiling():
        return "torch.compile fuses by itself"
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"it computes in float32, which is too coarse for {str(x.dtype).removeprefix('torch.')}"
    if x.shape[-1] > WIDEST:
        return f"a row of {x.shape[-1]} features is wider than the {WIDEST} that a program holds"
    return None
