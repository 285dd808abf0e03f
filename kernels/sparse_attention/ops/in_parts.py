"""Attention in parts, and the operator that merges two of them by their log-sum-exp.

Shapes: b batch, h heads, n queries, d head_dim. A result is out (b, h, n, d) and lse (b, h, n) float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layouts import BlockSparse, HubsApart, IndexList, InParts
from ..triton.merge import merge as _launch_merge
from ..triton.merge import merge_backward as _launch_backward
from .block_kernels import on
from .block_sparse import block_sparse_attention, fused_block_sparse_attention
from .hubs_apart import fused_hubs_apart_attention, hubs_apart_attention
from .index_list import fused_index_list_attention, index_list_attention

Result = tuple[Tensor, Tensor]

_PARTS = "Tensor first, Tensor first_lse, Tensor second, Tensor second_lse"
_LIBRARY = torch.library.Library("sparse_attention", "FRAGMENT")
_LIBRARY.define(f"merge_forward({_PARTS}) -> (Tensor, Tensor)")
_LIBRARY.define(f"merge_backward(Tensor? d_out, Tensor? d_lse, {_PARTS}) -> (Tensor, Tensor, Tensor, Tensor)")
_OPS = torch.ops.sparse_attention


def in_parts_attention(q: Tensor, k: Tensor, v: Tensor, layout: InParts, scale: float) -> Result:
    """The result, differentiable in q (b, h, n, d) and k, v (b, h, m, d); any strides."""
    of_kind = {
        IndexList: index_list_attention,
        BlockSparse: block_sparse_attention,
        HubsApart: hubs_apart_attention,
    }
    return _merged(of_kind[type(part)](q, k, v, part, scale) for part in layout.parts)


def fused_in_parts_attention(qkv: Tensor, layout: InParts, scale: float) -> Result:
    """The result, differentiable in qkv (b, n, 3, h, d), q, k and v in this order.

    Under autocast qkv is cast to its dtype, as scaled_dot_product_attention does.
    """
    if torch.is_autocast_enabled(qkv.device.type):
        qkv = qkv.to(torch.get_autocast_dtype(qkv.device.type))
    of_kind = {
        IndexList: fused_index_list_attention,
        BlockSparse: fused_block_sparse_attention,
        HubsApart: fused_hubs_apart_attention,
    }
    return _merged(of_kind[type(part)](qkv, part, scale) for part in layout.parts)


def merge(first: Result, second: Result) -> Result:
    """Attention over the keys of both results, which have none in common; differentiable."""
    return _OPS.merge_forward.default(*first, *second)


def _merged(results: Iterable[Result]) -> Result:
    return reduce(merge, results)


def _kernel(name: str):
    def register(function):
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return function

    return register


@_kernel("merge_forward")
def _forward(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor) -> Result:
    out, lse = _empty_result(first)
    with on(first.device):
        _launch_merge(*_in_place(first, first_lse, second, second_lse), out, lse)
    return out, lse


@_kernel("merge_backward")
def _backward(
    d_out: Tensor | None, d_lse: Tensor | None, first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_out = torch.zeros_like(first) if d_out is None else _in_rows(d_out)
    d_lse = None if d_lse is None else d_lse.contiguous()
    (d_first, d_first_lse), (d_second, d_second_lse) = _empty_result(first), _empty_result(first)
    with on(first.device):
        parts = _in_place(first, first_lse, second, second_lse)
        _launch_backward(d_out, d_lse, *parts, (d_first, d_second), (d_first_lse, d_second_lse))
    return d_first, d_first_lse, d_second, d_second_lse


def _in_place(
    first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _in_rows(first), _in_rows(first_lse), _in_rows(second), _in_rows(second_lse)


def _in_rows(x: Tensor) -> Tensor:
    """x, (..., d) or (..., n), that kernels can read where it is, or a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _empty_result(like: Tensor) -> Result:
    """out as the other operators store it, token by token, and lse."""
    batch, heads, num_queries, head_dim = like.shape
    out = like.new_empty((batch, num_queries, heads, head_dim)).transpose(1, 2)
    return out, like.new_empty((batch, heads, num_queries), dtype=torch.float32)


@torch.library.register_fake("sparse_attention::merge_forward", lib=_LIBRARY)
def _(first, first_lse, second, second_lse):
    return _empty_result(first)


@torch.library.register_fake("sparse_attention::merge_backward", lib=_LIBRARY)
def _(d_out, d_lse, first, first_lse, second, second_lse):
    return *_empty_result(first), *_empty_result(first)


class _Merge(torch.autograd.Function):
    """Keeps what it merges, which the parts keep as well; its own result is not needed."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Result:
        with torch._C._AutoDispatchBelowAutograd():
            output = _OPS.merge_forward.default(*inputs)
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor, ...]:
        return _OPS.merge_backward.default(d_out, d_lse, *ctx.saved_tensors)


_LIBRARY.impl("merge_forward", lambda *inputs: _Merge.apply(*inputs), "Autograd")
