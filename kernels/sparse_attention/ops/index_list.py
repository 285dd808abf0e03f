"""The operators that torch knows: schemas, kernels, shapes without data, gradients, FLOP formulas.

Two entries. `index_list_attention` takes q, k and v. `fused_index_list_attention` takes the output of one fused
projection and returns one gradient for it: autograd would otherwise copy three gradients into one, which costs a
quarter of the whole operator at 100,000 tokens.

Shapes: b batch, h heads, n queries, m keys, s slots, d head_dim.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from ..layouts import IndexList
from ..triton.index_list.backward import backward as _launch_backward
from ..triton.index_list.forward import forward as _launch_forward
from ..triton.index_list.launch import Tiles, keeps_weights, tiles_for

Lists = tuple[Tensor | None, Tensor | None, Tensor | None]

_LISTS = "Tensor? offsets, Tensor? edges, Tensor? order"
_LIBRARY = torch.library.Library("sparse_attention", "DEF")
_LIBRARY.define(
    f"index_list_forward(Tensor q, Tensor k, Tensor v, Tensor indices, {_LISTS}, float scale) "
    "-> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "index_list_backward(Tensor? d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor? out, Tensor lse, "
    f"Tensor weights, Tensor indices, {_LISTS}, float scale) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"fused_index_list_forward(Tensor qkv, Tensor indices, {_LISTS}, float scale) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "fused_index_list_backward(Tensor? d_out, Tensor? d_lse, Tensor qkv, Tensor? out, Tensor lse, Tensor weights, "
    f"Tensor indices, {_LISTS}, float scale) -> Tensor"
)
_OPS = torch.ops.sparse_attention


def index_list_attention(q: Tensor, k: Tensor, v: Tensor, layout: IndexList, scale: float) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d) and lse (b, h, n) float32, differentiable in q (b, h, n, d) and k, v (b, h, m, d).

    Any strides with a contiguous last dim and the same strides for k and v need no copy.
    """
    lists = _lists_by_key(layout, q, k, v)
    out, lse, _ = _OPS.index_list_forward.default(q, k, v, layout.indices, *lists, scale)
    return out, lse


def fused_index_list_attention(qkv: Tensor, layout: IndexList, scale: float) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d) and lse (b, h, n) float32, differentiable in qkv (b, n, 3, h, d), q, k and v in this order.

    Under autocast qkv is cast to its dtype, as scaled_dot_product_attention does.
    """
    if torch.is_autocast_enabled(qkv.device.type):
        qkv = qkv.to(torch.get_autocast_dtype(qkv.device.type))
    lists = _lists_by_key(layout, qkv)
    out, lse, _ = _OPS.fused_index_list_forward.default(qkv, layout.indices, *lists, scale)
    return out, lse


def _lists_by_key(layout: IndexList, *inputs: Tensor) -> Lists:
    """The transposed lists, which take time to build, only where backward may ask for them."""
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)):
        return None, None, None
    transposed = layout.transposed
    return transposed.offsets, transposed.edges, transposed.order


def _kernel(name: str):
    def register(function):
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return function

    return register


@_kernel("index_list_forward")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, offsets: Tensor | None, edges: Tensor | None,
    order: Tensor | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _run_forward(_rows_in_place(q), *_alike(k, v), indices, scale, training=offsets is not None)


@_kernel("index_list_backward")
def _backward(
    d_out: Tensor | None, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor | None, lse: Tensor,
    weights: Tensor, indices: Tensor, offsets: Tensor, edges: Tensor, order: Tensor, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    q, (k, v) = _rows_in_place(q), _alike(k, v)
    gradients = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    _run_backward(d_out, d_lse, q, k, v, out, lse, weights, indices, (offsets, edges, order), scale, gradients)
    return gradients


@_kernel("fused_index_list_forward")
def _fused_forward(
    qkv: Tensor, indices: Tensor, offsets: Tensor | None, edges: Tensor | None, order: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return _run_forward(*_split(_rows_in_place(qkv)), indices, scale, training=offsets is not None)


@_kernel("fused_index_list_backward")
def _fused_backward(
    d_out: Tensor | None, d_lse: Tensor | None, qkv: Tensor, out: Tensor | None, lse: Tensor, weights: Tensor,
    indices: Tensor, offsets: Tensor, edges: Tensor, order: Tensor, scale: float,
) -> Tensor:  # fmt: skip
    d_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    q, k, v = _split(_rows_in_place(qkv))
    _run_backward(d_out, d_lse, q, k, v, out, lse, weights, indices, (offsets, edges, order), scale, _split(d_qkv))
    return d_qkv


def _run_forward(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, scale: float, *, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    weights = _new_weights(q, indices, training)
    kept = weights if weights.numel() else None
    with _on(q.device):
        return *_launch_forward(q, k, v, indices, scale, _tiles(q, indices), kept), weights


def _run_backward(
    d_out: Tensor | None, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor | None, lse: Tensor,
    weights: Tensor, indices: Tensor, transposed: tuple[Tensor, Tensor, Tensor], scale: float,
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    d_out = torch.zeros_like(q) if d_out is None else _rows_in_place(d_out)
    d_lse = None if d_lse is None else d_lse.contiguous()
    kept, tiles = weights if weights.numel() else None, _tiles(q, indices)
    with _on(q.device):
        _launch_backward(d_out, d_lse, q, k, v, out, lse, kept, indices, transposed, scale, tiles, gradients)


def _new_weights(q: Tensor, indices: Tensor, training: bool) -> Tensor:
    """Room for the softmax weights, (b, h, n, s) float32; empty where backward computes them again."""
    batch, heads, num_queries, head_dim = q.shape
    kept = training and keeps_weights(head_dim, indices.shape[-1], q.dtype)
    return q.new_empty((batch, heads, num_queries, indices.shape[-1]) if kept else (0,), dtype=torch.float32)


def _tiles(q: Tensor, indices: Tensor) -> Tiles:
    return tiles_for(q.dtype, q.shape[-1], indices.shape[-1], q.device)


def _on(device: torch.device) -> AbstractContextManager[Any]:
    """Kernels are launched on the current device, which need not be that of the tensors."""
    return nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)


def _rows_in_place(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _alike(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """k and v with the same strides, which lets the kernels compute one address for both."""
    if k.stride() == v.stride() and k.stride(-1) == 1:
        return k, v
    return k.contiguous(), v.contiguous()


def _split(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Views q, k, v (b, h, n, d) of a fused projection (b, n, 3, h, d)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    return q, k, v


def _fake_results(q: Tensor, indices: Tensor, offsets: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, num_queries, head_dim = q.shape
    out = q.new_empty((batch, num_queries, heads, head_dim)).transpose(1, 2)
    lse = q.new_empty((batch, heads, num_queries), dtype=torch.float32)
    return out, lse, _new_weights(q, indices, offsets is not None)


@torch.library.register_fake("sparse_attention::index_list_forward", lib=_LIBRARY)
def _(q, k, v, indices, offsets, edges, order, scale):
    return _fake_results(q, indices, offsets)


@torch.library.register_fake("sparse_attention::index_list_backward", lib=_LIBRARY)
def _(d_out, d_lse, q, k, v, out, lse, weights, indices, offsets, edges, order, scale):
    q, (k, v) = _rows_in_place(q), _alike(k, v)
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


@torch.library.register_fake("sparse_attention::fused_index_list_forward", lib=_LIBRARY)
def _(qkv, indices, offsets, edges, order, scale):
    return _fake_results(_split(qkv)[0], indices, offsets)


@torch.library.register_fake("sparse_attention::fused_index_list_backward", lib=_LIBRARY)
def _(d_out, d_lse, qkv, out, lse, weights, indices, offsets, edges, order, scale):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


class _Attend(torch.autograd.Function):
    """Registered by hand: `torch.library.register_autograd` takes tens of microseconds more a call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = _OPS.index_list_forward.default(*inputs)
        _save_for_backward(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        gradients = _OPS.index_list_backward.default(d_out, d_lse, *ctx.saved_tensors, ctx.scale)
        return *gradients, None, None, None, None, None


class _AttendFused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = _OPS.fused_index_list_forward.default(*inputs)
        _save_for_backward(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        gradient = _OPS.fused_index_list_backward.default(d_out, d_lse, *ctx.saved_tensors, ctx.scale)
        return gradient, None, None, None, None, None


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, indices, offsets, edges, order, scale = inputs
    out, lse, weights = output
    # Kept weights say all that backward would ask the output for, and whoever reads that need not keep it.
    ctx.save_for_backward(*tensors, None if weights.numel() else out, lse, weights, indices, offsets, edges, order)
    ctx.scale = scale
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)


_LIBRARY.impl("index_list_forward", lambda *inputs: _Attend.apply(*inputs), "Autograd")
_LIBRARY.impl("fused_index_list_forward", lambda *inputs: _AttendFused.apply(*inputs), "Autograd")


def _flops(q_or_qkv: Tensor, indices: Tensor, passes: int) -> int:
    """2 d for each attended pair and pass; without data every slot counts as attended."""
    per_table = indices.numel() if isinstance(indices, FakeTensor) else int((indices >= 0).sum())
    batch, heads = q_or_qkv.shape[0], q_or_qkv.shape[1 if q_or_qkv.dim() == 4 else 3]
    return 2 * q_or_qkv.shape[-1] * passes * per_table * batch * (1 if indices.dim() == 3 else heads)


@register_flop_formula(_OPS.index_list_forward, get_raw=True)
def _(q, k, v, indices, *args, **kwargs) -> int:
    return _flops(q, indices, passes=2)


@register_flop_formula(_OPS.index_list_backward, get_raw=True)
def _(d_out, d_lse, q, k, v, out, lse, weights, indices, *args, **kwargs) -> int:
    return _flops(q, indices, passes=4 if weights.numel() else 5)


@register_flop_formula(_OPS.fused_index_list_forward, get_raw=True)
def _(qkv, indices, *args, **kwargs) -> int:
    return _flops(qkv, indices, passes=2)


@register_flop_formula(_OPS.fused_index_list_backward, get_raw=True)
def _(d_out, d_lse, qkv, out, lse, weights, indices, *args, **kwargs) -> int:
    return _flops(qkv, indices, passes=4 if weights.numel() else 5)
