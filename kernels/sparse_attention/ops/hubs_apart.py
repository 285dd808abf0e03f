"""The operators for hubs apart: the block sparse kernels over the longer sequence, without a merge or a second pass.

Copies of the tokens apart stand behind the sequence, which is copied for that, once forward and once backward. For
backward the projection itself is kept, and not the copy: whoever makes it again from less finds it here as elsewhere.

Shapes: b batch, n queries and keys, h heads, d head_dim; P, C, R and L as in `HubsApart`. Lists as in `block_sparse`,
those of the longer sequence.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from ..layouts import HubsApart
from ..triton.block_sparse.lists import Lists
from .block_kernels import run_backward, run_forward, split
from .block_sparse import COLUMNS, ROWS, attended_pairs, lists_of

_COPIES = "Tensor rows, Tensor columns, SymInt first, SymInt length"
_LIBRARY = torch.library.Library("sparse_attention", "FRAGMENT")
_LIBRARY.define(
    f"hubs_apart_forward(Tensor qkv, {_COPIES}, {ROWS}, {COLUMNS.format('?')}, float scale) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    f"hubs_apart_backward(Tensor? d_out, Tensor? d_lse, Tensor qkv, Tensor out, Tensor lse, {_COPIES}, {ROWS}, "
    f"{COLUMNS.format('')}, float scale) -> Tensor"
)
_OPS = torch.ops.sparse_attention

NUM_CONSTANTS = 15
"""Inputs of forward that have no gradient: four of copies, five tensors by row, five by column, and scale."""


def hubs_apart_attention(q: Tensor, k: Tensor, v: Tensor, layout: HubsApart, scale: float) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d) and lse (b, h, n) float32, differentiable in q, k and v (b, h, n, d); any strides."""
    qkv = torch.stack([x.transpose(1, 2) for x in (q, k, v)], dim=2)
    return fused_hubs_apart_attention(qkv, layout, scale)


def fused_hubs_apart_attention(qkv: Tensor, layout: HubsApart, scale: float) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d) and lse (b, h, n) float32, differentiable in qkv (b, n, 3, h, d), q, k and v in this order.

    Under autocast qkv is cast to its dtype, as scaled_dot_product_attention does.
    """
    if torch.is_autocast_enabled(qkv.device.type):
        qkv = qkv.to(torch.get_autocast_dtype(qkv.device.type))
    by_row, by_column = lists_of(layout.blocks, qkv)
    copies = layout.rows_index, layout.columns_index, layout.first_copy, layout.blocks.num_tokens
    out, lse = _OPS.hubs_apart_forward.default(qkv, *copies, *by_row, *by_column, scale)
    # As the backward of these, autograd makes the gradients as long as the longer sequence.
    return out[:, :, : qkv.shape[1]], lse[:, :, : qkv.shape[1]]


class _Copies(NamedTuple):
    """rows (R,) and columns (C,): positions of the tokens that are copied; first: P; length: L."""

    rows: Tensor
    columns: Tensor
    first: int
    length: int

    def longer(self, qkv: Tensor) -> Tensor:
        """(b, L, 3, h, d), zeros where nothing else stands."""
        num_tokens = qkv.shape[1]
        longer = qkv.new_empty((qkv.shape[0], self.length, *qkv.shape[2:]))
        longer[:, :num_tokens] = qkv
        longer[:, num_tokens:] = 0
        self.of_rows(longer, 1)[:, :, 0] = qkv[:, :, 0].index_select(1, self.rows)
        self.of_columns(longer, 1)[:, :, 1:] = qkv[:, :, 1:].index_select(1, self.columns)
        return longer

    def longer_gradient(self, d_x: Tensor | None) -> Tensor | None:
        """d_x (b, h, L, ...) with what reached originals of queries at their copies, which it is for."""
        if d_x is None:
            return None
        d_x = d_x.clone()
        self.of_rows(d_x, 2).copy_(d_x.index_select(2, self.rows))
        return d_x

    def of_rows(self, x: Tensor, dim: int) -> Tensor:
        return x.narrow(dim, self.first, self.rows.shape[0])

    def of_columns(self, x: Tensor, dim: int) -> Tensor:
        return x.narrow(dim, self.first, self.columns.shape[0])


def _kernel(name: str):
    def register(function):
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        return function

    return register


@_kernel("hubs_apart_forward")
def _forward(
    qkv: Tensor, rows: Tensor, columns: Tensor, first: int, length: int, *lists_and_scale: Any
) -> tuple[Tensor, Tensor]:
    """out (b, h, L, d) and lse (b, h, L), at copies of queries and at their originals alike."""
    copies = _Copies(rows, columns, first, length)
    *lists, scale = lists_and_scale
    out, lse = run_forward(*split(copies.longer(qkv)), Lists(*lists[:5], per_head=False), scale)
    for x in (out, lse):
        x.index_copy_(2, rows, copies.of_rows(x, 2).clone())
    return out, lse


@_kernel("hubs_apart_backward")
def _backward(
    d_out: Tensor | None, d_lse: Tensor | None, qkv: Tensor, out: Tensor, lse: Tensor,
    rows: Tensor, columns: Tensor, first: int, length: int, *lists_and_scale: Any,
) -> Tensor:  # fmt: skip
    copies, num_tokens = _Copies(rows, columns, first, length), qkv.shape[1]
    *lists, scale = lists_and_scale
    gradient = qkv.new_empty((qkv.shape[0], length, *qkv.shape[2:]))
    d_out, d_lse = copies.longer_gradient(d_out), copies.longer_gradient(d_lse)
    by_row, by_column = Lists(*lists[:5], per_head=False), Lists(*lists[5:], per_head=False)
    # Originals of queries apart have out and lse of their copies here: with no key of their own, they add nothing.
    run_backward(d_out, d_lse, *split(copies.longer(qkv)), out, lse, by_row, by_column, scale, split(gradient))
    d_qkv = gradient[:, :num_tokens]
    d_q, d_kv = d_qkv[:, :, 0], d_qkv[:, :, 1:]
    d_q.index_copy_(1, rows, copies.of_rows(gradient, 1)[:, :, 0])
    d_kv.index_copy_(1, columns, d_kv.index_select(1, columns) + copies.of_columns(gradient, 1)[:, :, 1:])
    return d_qkv


@torch.library.register_fake("sparse_attention::hubs_apart_forward", lib=_LIBRARY)
def _(qkv, rows, columns, first, length, *rest):
    batch, _, _, heads, head_dim = qkv.shape
    out = qkv.new_empty((batch, length, heads, head_dim)).transpose(1, 2)
    return out, qkv.new_empty((batch, heads, length), dtype=torch.float32)


@torch.library.register_fake("sparse_attention::hubs_apart_backward", lib=_LIBRARY)
def _(d_out, d_lse, qkv, out, lse, rows, columns, first, length, *rest):
    return qkv.new_empty((qkv.shape[0], length, *qkv.shape[2:]))[:, : qkv.shape[1]]


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            output = _OPS.hubs_apart_forward.default(qkv, *constants)
        rows, columns, first, length, *lists, scale = constants
        ctx.save_for_backward(qkv, *output, rows, columns, *lists)
        ctx.rest = first, length, scale
        ctx.set_materialize_grads(False)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        qkv, out, lse, rows, columns, *lists = ctx.saved_tensors
        first, length, scale = ctx.rest
        gradient = _OPS.hubs_apart_backward.default(
            d_out, d_lse, qkv, out, lse, rows, columns, first, length, *lists, scale
        )
        return gradient, *[None] * NUM_CONSTANTS


_LIBRARY.impl("hubs_apart_forward", lambda *inputs: _Attend.apply(*inputs), "Autograd")


def _flops(passes: int, qkv: Tensor, length: int, rows: tuple[Tensor, ...]) -> int:
    """2 d for each attended pair and pass, as for blocks."""
    return 2 * qkv.shape[-1] * passes * attended_pairs(length, *rows[:4]) * qkv.shape[0] * qkv.shape[3]


@register_flop_formula(_OPS.hubs_apart_forward, get_raw=True)
def _(qkv, rows, columns, first, length, *rest, **kwargs) -> int:
    return _flops(2, qkv, length, rest)


@register_flop_formula(_OPS.hubs_apart_backward, get_raw=True)
def _(d_out, d_lse, qkv, out, lse, rows, columns, first, length, *rest, **kwargs) -> int:
    return _flops(5, qkv, length, rest)
