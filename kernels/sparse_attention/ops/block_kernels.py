"""The kernels for blocks on tensors as they come: on any device, of any strides and head_dim.

Shapes: b batch, h heads, n queries, m keys, d head_dim.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..triton.block_sparse.backward import backward as _launch_backward
from ..triton.block_sparse.descriptors import aligned_width, can_describe
from ..triton.block_sparse.forward import forward as _launch_forward
from ..triton.block_sparse.launch import tiles_for
from ..triton.block_sparse.lists import Lists


def run_forward(q: Tensor, k: Tensor, v: Tensor, rows: Lists, scale: float) -> tuple[Tensor, Tensor]:
    """out and lse of tensors that are `readable`."""
    missing = aligned_width(q.shape[-1], q.dtype) - q.shape[-1]
    if missing:
        q, k, v = (pad(x, (0, missing)) for x in (q, k, v))
        wide, lse = run_forward(q, k, v, rows, scale)
        return wide[..., :-missing].transpose(1, 2).contiguous().transpose(1, 2), lse
    with on(q.device):
        return _launch_forward(q, k, v, rows, scale, tiles_for(q.dtype, q.shape[-1], rows.block_size).forward)


def run_backward(
    d_out: Tensor | None, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    rows: Lists, columns: Lists, scale: float, gradients: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    """Fill the gradients of q, k and v, which are `readable`; d_out and d_lse may be None, and are 0 then."""
    missing = aligned_width(q.shape[-1], q.dtype) - q.shape[-1]
    if missing:
        q, k, v, out = (pad(x, (0, missing)) for x in (q, k, v, out))
        d_out = None if d_out is None else pad(d_out, (0, missing))
        wide = (torch.empty_like(q), torch.empty_like(k), torch.empty_like(k))
        run_backward(d_out, d_lse, q, k, v, out, lse, rows, columns, scale, wide)
        for gradient, padded in zip(gradients, wide, strict=True):
            gradient.copy_(padded[..., :-missing])
        return
    d_out = torch.zeros_like(out) if d_out is None else readable(d_out)
    d_lse = None if d_lse is None else d_lse.contiguous()
    tiles = tiles_for(q.dtype, q.shape[-1], rows.block_size)
    with on(q.device):
        _launch_backward(d_out, d_lse, q, k, v, out, lse, rows, columns, scale, tiles, gradients)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Kernels are launched on the current device, which need not be that of the tensors."""
    return nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)


def readable(x: Tensor) -> Tensor:
    """x (b, h, n, d) or (b, n, 3, h, d) where kernels can read it, a copy otherwise."""
    return x if can_describe(x) else x.clone(memory_format=torch.contiguous_format)


def empty_gradients(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For q, k and v, stored as they are, since autograd would copy gradients of other strides; dk and dv alike."""
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(k)


def split(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views q, k, v (b, h, n, d) of a fused projection (b, n, 3, h, d)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    return q, k, v
