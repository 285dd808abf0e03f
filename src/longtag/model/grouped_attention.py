"""Attention a group of heads at a time, from a block's input to the output projection, with a backward of its own.

    y = norm(x), or x;    out = sum over the groups of  attention(y Wg + bg) Og,  and the output's bias

Only x is kept: q, k, v and the heads of a group are made again in backward, when no other group's exist. What groups
have in common adds up inside of products: the output in forward, the gradient of y in backward. Where groups are small,
forward, which has no gradient of q, k and v to hold, takes two at once.

Legend: b batch, n tokens, m width of the model, h heads, g heads of a group, d head_dim, r rows (b * n).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import get_gradient_edge

from longtag.fused import product_dtype
from longtag.memory.even_tiles import even_tiles
from longtag.memory.head_groups import layouts_of_groups
from longtag.model.rotary import Rotation, rotate
from sparse_attention import Layout

SMALL = 2**27
"""Elements of q, k and v together."""

Attend = Callable[[Tensor, Layout], Tensor]
"""(b, n, 3, g, d) and the layout of these heads -> (b, g, n, d)."""


class Projections(NamedTuple):
    """Parameters as they are stored: (3 m, m) and (3 m) to q, k and v of all heads, (m, m) and (m) of the output."""

    qkv_weight: Tensor
    qkv_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


@dataclass(frozen=True, kw_only=True)
class Groups:
    """layout:   of all heads.
    group:    heads of a group, at most.
    attend:   the operator.
    rotation: of q and k by their positions, or None.
    norm:     of x before the projection, or None.
    tile:     rows at a time in the norm and in casts; None takes all of them.
    """

    layout: Layout
    group: int
    num_heads: int
    attend: Attend
    rotation: Rotation | None
    norm: nn.LayerNorm | None
    tile: int | None


def attention_by_groups(x: Tensor, projections: Projections, groups: Groups) -> tuple[Tensor, Tensor]:
    """(b, n, m) -> (b, n, m) in the dtype of products, and x for whoever else reads it.

    The gradients of x meet inside of products, which start from that of the other reader; it must be nobody else's.
    """
    norm = groups.norm
    parameters = (*projections, *((None, None) if norm is None else (norm.weight, norm.bias)))
    return _AttentionByGroups.apply(x, groups, product_dtype(x), *parameters)  # pyright: ignore[reportReturnType]


class _AttentionByGroups(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, groups: Groups, product: torch.dtype, *parameters: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *parameters)
        ctx.groups, ctx.product = groups, product
        run = _Run(x, parameters, groups, product)
        out: Tensor | None = None
        for part in run.parts(run.heads_in_forward):
            heads = _rows_of(groups.attend(run.qkv(part), part.layout))
            if out is None:
                out = torch.addmm(run.out_bias, heads, part.out_weight.mT)
            else:
                out.addmm_(heads, part.out_weight.mT)
        assert out is not None
        return out.view(x.shape), x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor | None, d_same: Tensor | None) -> tuple[Tensor | None, ...]:
        if d_out is None:
            return d_same, *[None] * (len(ctx.needs_input_grad) - 1)
        x, *parameters = ctx.saved_tensors
        return _Run(x, parameters, ctx.groups, ctx.product).backward(d_out, d_same, ctx.needs_input_grad)


class _Part(NamedTuple):
    """One group: which heads, their layout, and their share of the weights in the dtype of products."""

    heads: slice
    layout: Layout
    qkv_weight: Tensor  # (3 g d, m)
    qkv_bias: Tensor  # (3 g d)
    out_weight: Tensor  # (m, g d)
    columns: slice  # of the output's weight


class _Run:
    """One pass over all groups."""

    def __init__(self, x: Tensor, parameters: Any, groups: Groups, product: torch.dtype) -> None:
        self.weights = Projections._make(parameters[:4])
        self.norm_weight, self.norm_bias = parameters[4:]
        self.groups, self.product = groups, product
        self.batch, self.num_tokens, width = x.shape
        self.rows = x.flatten(0, 1)
        self.head_dim = width // groups.num_heads
        self.out_bias = self.weights.out_bias.to(product)
        # Two groups at once would hold no more than one and its gradients do. That pays where a group is so small that
        # the host takes longer to start it than the device to do it; a layout of each head would be cut once more.
        elements = 2 * groups.group * 3 * self.head_dim * self.rows.shape[0]
        doubles = groups.layout.num_heads is None and elements <= SMALL
        self.heads_in_forward = 2 * groups.group if doubles else groups.group
        # Of sums over many rows.
        self.wide = torch.promote_types(self.weights.out_bias.dtype, torch.float32)

    def parts(self, group: int) -> Iterator[_Part]:
        by_head = (3, self.groups.num_heads, self.head_dim)
        weight_3hdm = self.weights.qkv_weight.to(self.product).unflatten(0, by_head)
        bias_3hd = self.weights.qkv_bias.to(self.product).unflatten(0, by_head)
        out_weight = self.weights.out_weight.to(self.product)
        for number, layout in enumerate(layouts_of_groups(self.groups.layout, self.groups.num_heads, group)):
            heads = slice(number * group, min((number + 1) * group, self.groups.num_heads))
            columns = slice(heads.start * self.head_dim, heads.stop * self.head_dim)
            yield _Part(
                heads,
                layout,
                weight_3hdm[:, heads].flatten(0, 2),
                bias_3hd[:, heads].flatten(),
                out_weight[:, columns],
                columns,
            )

    def qkv(self, part: _Part) -> Tensor:
        """(b, n, 3, g, d), turned by positions."""
        if self._as_they_are:
            projected = torch.addmm(part.qkv_bias, self.rows, part.qkv_weight.mT)
        else:
            projected = self.rows.new_empty((self.rows.shape[0], part.qkv_bias.shape[0]), dtype=self.product)
            for rows in self._tiles():
                torch.addmm(part.qkv_bias, self._prepared(self.rows[rows]), part.qkv_weight.mT, out=projected[rows])
        qkv = projected.view(self.batch, self.num_tokens, 3, -1, self.head_dim)
        if self.groups.rotation is not None:
            rotate(qkv, self.groups.rotation)
        return qkv

    def backward(self, d_out: Tensor, d_same: Tensor | None, needed: Any) -> tuple[Tensor | None, ...]:
        d_out = d_out.reshape(self.rows.shape).to(self.product)
        d_weights = Projections._make(torch.empty_like(weight) for weight in self.weights)
        d_weights.out_bias.copy_(d_out.sum(0, dtype=self.wide))
        by_head = (3, self.groups.num_heads, self.head_dim)
        d_weight_3hdm, d_bias_3hd = (part.unflatten(0, by_head) for part in (d_weights.qkv_weight, d_weights.qkv_bias))
        d_rows, is_ours = self._start(d_same), False
        if d_rows is not None:
            is_ours = d_rows.untyped_storage()._cdata != d_out.untyped_storage()._cdata
            d_same = None
        for part in self.parts(self.groups.group):
            d_qkv = self._backward_of_attention(part, d_out, d_weights.out_weight[:, part.columns])
            d_weight_3hdm[:, part.heads] = self._weight_gradient(d_qkv).view_as(d_weight_3hdm[:, part.heads])
            d_bias_3hd[:, part.heads] = d_qkv.sum(0, dtype=self.wide).view_as(d_bias_3hd[:, part.heads])
            if d_rows is None:
                d_rows = d_qkv @ part.qkv_weight
            elif is_ours:
                d_rows.addmm_(d_qkv, part.qkv_weight)
            else:
                d_rows = torch.addmm(d_rows, d_qkv, part.qkv_weight)
            is_ours = True
            del d_qkv
        assert d_rows is not None
        d_norm: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.groups.norm is not None:
            d_rows, d_norm = self._backward_of_norm(d_rows)
        d_x = d_rows.to(self.rows.dtype).view(self.batch, self.num_tokens, -1)
        if d_same is not None:
            d_x = d_x.add_(d_same)
        found = (d_x, None, None, *d_weights, *d_norm)
        return tuple(gradient if need else None for gradient, need in zip(found, needed, strict=True))

    def _start(self, d_same: Tensor | None) -> Tensor | None:
        """The other gradient of x, where products can start from it: not in front of a norm, nor in another dtype."""
        if d_same is None or not self._as_they_are or not d_same.is_contiguous():
            return None
        return d_same.view(self.rows.shape)

    def _backward_of_attention(self, part: _Part, d_out: Tensor, d_out_weight: Tensor) -> Tensor:
        """Fill the gradient of the group's share of the output's weight, and return that of q, k and v, (r, 3 g d)."""
        qkv = self.qkv(part).requires_grad_()
        with torch.enable_grad():
            out = self.groups.attend(qkv, part.layout)
        # The node alone: with the result held, that would stay until its gradient is there.
        edge = get_gradient_edge(out)
        d_out_weight.copy_(d_out.mT @ _rows_of(out.detach()))
        del out
        d_heads = (d_out @ part.out_weight).view(self.batch, self.num_tokens, -1, self.head_dim).transpose(1, 2)
        (d_qkv,) = torch.autograd.grad(edge, qkv, d_heads)
        d_qkv = d_qkv.contiguous()
        if self.groups.rotation is not None:
            rotate(d_qkv, self.groups.rotation, back=True)
        return d_qkv.view(self.rows.shape[0], -1)

    def _weight_gradient(self, d_qkv: Tensor) -> Tensor:
        """(3 g d, m)."""
        if self._as_they_are:
            return d_qkv.mT @ self.rows
        total: Tensor | None = None
        for rows in self._tiles():
            gradient = d_qkv[rows].mT @ self._prepared(self.rows[rows])
            total = gradient.to(self.wide) if total is None else total.add_(gradient)
        assert total is not None
        return total

    def _backward_of_norm(self, d_rows: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        d_x = d_rows if d_rows.dtype == self.rows.dtype else torch.empty_like(self.rows)
        # Leaves of their own, whether they learn or not.
        weight, bias = (part.detach().requires_grad_() for part in (self.norm_weight, self.norm_bias))
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for rows in self._tiles():
            x = self.rows[rows].detach().requires_grad_()
            with torch.enable_grad():
                normed = self._normed(x, weight, bias)
            gradients = torch.autograd.grad(normed, (x, weight, bias), d_rows[rows].to(normed.dtype))
            d_x[rows] = gradients[0]
            d_weight += gradients[1]
            d_bias += gradients[2]
        return d_x, (d_weight, d_bias)

    def _normed(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        assert self.groups.norm is not None
        with torch.autocast(rows.device.type, enabled=False):
            # In the dtype of its weights, as under autocast.
            return F.layer_norm(rows.to(weight.dtype), weight.shape, weight, bias, self.groups.norm.eps)

    def _prepared(self, rows: Tensor) -> Tensor:
        """What the projection multiplies: normed where there is a norm, in the dtype of products."""
        if self.groups.norm is not None:
            rows = self._normed(rows, self.norm_weight, self.norm_bias)
        return rows.to(self.product)

    @property
    def _as_they_are(self) -> bool:
        return self.groups.norm is None and self.rows.dtype == self.product

    def _tiles(self) -> Iterator[slice]:
        return even_tiles(self.rows.shape[0], self.groups.tile)


def _rows_of(out_bgnd: Tensor) -> Tensor:
    """(b, g, n, d) -> (r, g d), without a copy of what the operator makes."""
    return out_bgnd.transpose(1, 2).flatten(0, 1).flatten(1)
