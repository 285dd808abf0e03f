"""The operators for block sparse layouts that torch knows: schemas, kernels, shapes without data, gradients, FLOPs.

Two entries, as for index lists: `block_sparse_attention` takes q, k and v, and `fused_block_sparse_attention` the
output of one fused projection, for which it returns one gradient.

Shapes: b batch, h heads, n queries, m keys, d head_dim; `BlockLists` and `BlockWork` say those of the lists. Lists by
row come as (mask_words, blocks, masks, items, splits), and those by column the same way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from ..layouts import BlockSparse
from ..layouts.bit_masks import count_bits
from ..layouts.block_lists import WHOLE
from ..layouts.layout import NOT_BUILT
from ..triton.block_sparse.lists import Lists
from .block_kernels import empty_gradients, readable, run_backward, run_forward, split

ROWS = "Tensor mask_words, Tensor blocks, Tensor masks, Tensor items, Tensor splits"
COLUMNS = "Tensor{0} t_mask_words, Tensor{0} t_blocks, Tensor{0} t_masks, Tensor{0} t_items, Tensor{0} t_splits"
_REST = "bool per_head, float scale"
_GRADIENTS = "Tensor? d_out, Tensor? d_lse"
_LIBRARY = torch.library.Library("sparse_attention", "FRAGMENT")
_LIBRARY.define(
    f"block_sparse_forward(Tensor q, Tensor k, Tensor v, {ROWS}, {COLUMNS.format('?')}, {_REST}) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    f"block_sparse_backward({_GRADIENTS}, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, {ROWS}, "
    f"{COLUMNS.format('')}, {_REST}) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(f"fused_block_sparse_forward(Tensor qkv, {ROWS}, {COLUMNS.format('?')}, {_REST}) -> (Tensor, Tensor)")
_LIBRARY.define(
    f"fused_block_sparse_backward({_GRADIENTS}, Tensor qkv, Tensor out, Tensor lse, {ROWS}, {COLUMNS.format('')}, "
    f"{_REST}) -> Tensor"
)
_OPS = torch.ops.sparse_attention

NUM_CONSTANTS = 12
"""Inputs of forward that have no gradient: five tensors by row, five by column, per_head and scale."""


def block_sparse_attention(q: Tensor, k: Tensor, v: Tensor, layout: BlockSparse, scale: float) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d) and lse (b, h, n) float32, differentiable in q (b, h, n, d) and k, v (b, h, m, d).

    Any strides with a contiguous last dim need no copy.
    """
    rows, columns = lists_of(layout, q, k, v)
    return _OPS.block_sparse_forward.default(q, k, v, *rows, *columns, layout.num_heads is not None, scale)


def fused_block_sparse_attention(qkv: Tensor, layout: BlockSparse, scale: float) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d) and lse (b, h, n) float32, differentiable in qkv (b, n, 3, h, d), q, k and v in this order.

    Under autocast qkv is cast to its dtype, as scaled_dot_product_attention does.
    """
    if torch.is_autocast_enabled(qkv.device.type):
        qkv = qkv.to(torch.get_autocast_dtype(qkv.device.type))
    rows, columns = lists_of(layout, qkv)
    return _OPS.fused_block_sparse_forward.default(qkv, *rows, *columns, layout.num_heads is not None, scale)


def lists_of(layout: BlockSparse, *inputs: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """Lists by row, and those by column, which take time to build, only where backward may ask for them."""
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    if torch.compiler.is_compiling() and not layout.is_built(training):
        raise ValueError(NOT_BUILT)
    lists, work = layout.lists, layout.work
    rows = (layout.mask_words, lists.blocks, lists.masks, work.items, work.splits)
    if not training:
        return rows, (None, None, None, None, None)
    lists, work = layout.transposed, layout.transposed_work
    return rows, (layout.transposed_mask_words, lists.blocks, lists.masks, work.items, work.splits)


def _kernel(name: str):
    def register(function):
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return function

    return register


@_kernel("block_sparse_forward")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, mask_words: Tensor, blocks: Tensor, masks: Tensor, items: Tensor, splits: Tensor,
    t_mask_words: Tensor | None, t_blocks: Tensor | None, t_masks: Tensor | None, t_items: Tensor | None,
    t_splits: Tensor | None, per_head: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    rows = Lists(mask_words, blocks, masks, items, splits, per_head)
    return run_forward(readable(q), readable(k), readable(v), rows, scale)


@_kernel("block_sparse_backward")
def _backward(
    d_out: Tensor | None, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    mask_words: Tensor, blocks: Tensor, masks: Tensor, items: Tensor, splits: Tensor,
    t_mask_words: Tensor, t_blocks: Tensor, t_masks: Tensor, t_items: Tensor, t_splits: Tensor,
    per_head: bool, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rows = Lists(mask_words, blocks, masks, items, splits, per_head)
    columns = Lists(t_mask_words, t_blocks, t_masks, t_items, t_splits, per_head)
    q, k, v = map(readable, (q, k, v))
    gradients = empty_gradients(q, k)
    run_backward(d_out, d_lse, q, k, v, out, lse, rows, columns, scale, gradients)
    return gradients


@_kernel("fused_block_sparse_forward")
def _fused_forward(
    qkv: Tensor, mask_words: Tensor, blocks: Tensor, masks: Tensor, items: Tensor, splits: Tensor,
    t_mask_words: Tensor | None, t_blocks: Tensor | None, t_masks: Tensor | None, t_items: Tensor | None,
    t_splits: Tensor | None, per_head: bool, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return run_forward(*split(readable(qkv)), Lists(mask_words, blocks, masks, items, splits, per_head), scale)


@_kernel("fused_block_sparse_backward")
def _fused_backward(
    d_out: Tensor | None, d_lse: Tensor | None, qkv: Tensor, out: Tensor, lse: Tensor,
    mask_words: Tensor, blocks: Tensor, masks: Tensor, items: Tensor, splits: Tensor,
    t_mask_words: Tensor, t_blocks: Tensor, t_masks: Tensor, t_items: Tensor, t_splits: Tensor,
    per_head: bool, scale: float,
) -> Tensor:  # fmt: skip
    rows = Lists(mask_words, blocks, masks, items, splits, per_head)
    columns = Lists(t_mask_words, t_blocks, t_masks, t_items, t_splits, per_head)
    d_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    q, k, v = split(readable(qkv))
    run_backward(d_out, d_lse, q, k, v, out, lse, rows, columns, scale, split(d_qkv))
    return d_qkv


def _fake_results(q: Tensor) -> tuple[Tensor, Tensor]:
    batch, heads, num_queries, head_dim = q.shape
    out = q.new_empty((batch, num_queries, heads, head_dim)).transpose(1, 2)
    return out, q.new_empty((batch, heads, num_queries), dtype=torch.float32)


@torch.library.register_fake("sparse_attention::block_sparse_forward", lib=_LIBRARY)
def _(q, k, v, *lists):
    return _fake_results(q)


@torch.library.register_fake("sparse_attention::block_sparse_backward", lib=_LIBRARY)
def _(d_out, d_lse, q, k, *rest):
    return empty_gradients(readable(q), readable(k))


@torch.library.register_fake("sparse_attention::fused_block_sparse_forward", lib=_LIBRARY)
def _(qkv, *lists):
    return _fake_results(split(qkv)[0])


@torch.library.register_fake("sparse_attention::fused_block_sparse_backward", lib=_LIBRARY)
def _(d_out, d_lse, qkv, *rest):
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


class _Attend(torch.autograd.Function):
    """Registered by hand: `torch.library.register_autograd` takes tens of microseconds more a call."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = _OPS.block_sparse_forward.default(*inputs)
        _save_for_backward(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        gradients = _OPS.block_sparse_backward.default(d_out, d_lse, *ctx.saved_tensors, *ctx.rest)
        return *gradients, *[None] * NUM_CONSTANTS


class _AttendFused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = _OPS.fused_block_sparse_forward.default(*inputs)
        _save_for_backward(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient = _OPS.fused_block_sparse_backward.default(d_out, d_lse, *ctx.saved_tensors, *ctx.rest)
        return gradient, *[None] * NUM_CONSTANTS


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *lists, per_head, scale = inputs[-NUM_CONSTANTS:]
    ctx.save_for_backward(*inputs[:-NUM_CONSTANTS], *output, *lists)
    ctx.rest = per_head, scale
    ctx.set_materialize_grads(False)


_LIBRARY.impl("block_sparse_forward", lambda *inputs: _Attend.apply(*inputs), "Autograd")
_LIBRARY.impl("fused_block_sparse_forward", lambda *inputs: _AttendFused.apply(*inputs), "Autograd")


def _flops(passes: int, q_or_qkv: Tensor, rows: tuple[Tensor, ...], per_head: bool) -> int:
    """2 d for each attended pair and pass; without data every pair of every listed block counts as attended."""
    fused = q_or_qkv.dim() == 5
    batch, heads, num_queries = q_or_qkv.shape[0], q_or_qkv.shape[3 if fused else 1], q_or_qkv.shape[1 if fused else 2]
    pairs = attended_pairs(num_queries, *rows[:4])
    return 2 * q_or_qkv.shape[-1] * passes * pairs * batch * (1 if per_head else heads)


def attended_pairs(num_queries: int, mask_words: Tensor, blocks: Tensor, masks: Tensor, items: Tensor) -> int:
    size = mask_words.shape[1]
    if isinstance(blocks, FakeTensor):
        return blocks.numel() * size**2
    whole_before = torch.cat((masks.new_zeros(1), (masks == WHOLE).cumsum(0)))
    row, start, end, _ = items.long().unbind(1)
    queries = (num_queries - row % -(-num_queries // size) * size).clamp(max=size)
    whole = (whole_before[end] - whole_before[start]) * queries * size
    return int(whole.sum() + count_bits(mask_words)[masks[masks != WHOLE].long()].sum())


@register_flop_formula(_OPS.block_sparse_forward, get_raw=True)
def _(q, k, v, *rest, **kwargs) -> int:
    return _flops(2, q, rest[:5], rest[10])


@register_flop_formula(_OPS.block_sparse_backward, get_raw=True)
def _(d_out, d_lse, q, k, v, out, lse, *rest, **kwargs) -> int:
    return _flops(5, q, rest[:5], rest[10])


@register_flop_formula(_OPS.fused_block_sparse_forward, get_raw=True)
def _(qkv, *rest, **kwargs) -> int:
    return _flops(2, qkv, rest[:5], rest[10])


@register_flop_formula(_OPS.fused_block_sparse_backward, get_raw=True)
def _(d_out, d_lse, qkv, out, lse, *rest, **kwargs) -> int:
    return _flops(5, qkv, rest[:5], rest[10])
