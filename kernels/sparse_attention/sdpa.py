"""Dense attention by torch's scaled_dot_product_attention, where it takes a kernel that holds no scores in memory."""

from __future__ import annotations

import operator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.attention import SDPBackend

from .layouts import Dense


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Dense, scale: float) -> tuple[Tensor, Tensor]:
    """out and, in the place of lse, an empty tensor; inputs as `why_not` lets them through.

    On a GPU some of torch's kernels add gradients up in an order that differs from run to run, unless
    `torch.use_deterministic_algorithms(True)` was called.
    """
    # Its fused kernels want the last dim contiguous; otherwise torch would quietly take the one that holds all scores.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    if scale <= 0:
        # They mask with -inf, and look for the largest score, before they scale.
        q, scale = (-q, -scale) if scale < 0 else (q * 0, 1.0)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=layout.causal, scale=scale)
    return out, out.new_empty(0)


def why_not(q: Tensor, k: Tensor, v: Tensor, layout: Dense) -> str | None:
    """Why torch has no kernel for these inputs that does without all N x M scores, or None when it has one."""
    # `index` makes a plain number of a size that torch.compile treats as dynamic.
    if _has_fused_kernel(q.device, q.dtype, operator.index(q.shape[-1]), layout.causal):
        return None
    return (
        f"torch has no fused kernel for {str(q.dtype).removeprefix('torch.')} and head_dim {q.shape[-1]} on "
        f"{q.device.type}, and its other one holds all scores in memory"
    )


def _has_fused_kernel(device: torch.device, dtype: torch.dtype, head_dim: int, causal: bool) -> bool:
    """Asked with a real tensor, a tiny one: for fake ones, such as torch.compile traces with, torch answers wrongly."""
    with unset_fake_temporarily():
        x = torch.empty((1, 1, 16, head_dim), device=device, dtype=dtype, requires_grad=True)
        try:
            backend = torch._fused_sdp_choice(x, x, x, is_causal=causal)  # pyright: ignore[reportPrivateImportUsage]
        except RuntimeError:  # torch.nn.attention.sdpa_kernel has ruled out everything that torch could take
            return False
    return backend not in (SDPBackend.MATH.value, SDPBackend.ERROR.value)


# What torch.compiler.assume_constant_result sets; calling that would import the whole compiler, which takes seconds.
_has_fused_kernel._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]
