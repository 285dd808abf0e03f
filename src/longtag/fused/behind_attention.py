"""All of a block that follows attention, as one function with a backward of its own.

    norm="post":  y = norm1(x + drop(attended Wo + bo));  out = norm2(y + drop(ffn(y)))
    norm="pre":   s = x + drop(attended Wo + bo);         out = s + drop(ffn(norm2(s)))

    ffn(y) = drop(relu(y W1 + b1)) W2 + b2

Forward reads and writes each (n, m) tensor once for each sum, in the kernel that norms it. For backward it keeps both
sums, two numbers a row, and the hidden features, which say by being 0 what ReLU or dropout had cut off; y is made again
from the first sum. No mask is stored. Or it keeps nothing but its inputs, and runs again a tile of rows at a time.

Legend: n rows, one for each token; m width of the model; f hidden features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longtag.memory.even_tiles import even_tiles

SEEDS = 3


class Weights(NamedTuple):
    """Parameters as they are stored. out_weight and out_bias are None where `attended` is projected already.

    mid: the norm between the two halves; last: the norm at the end, None where norms come first.
    """

    out_weight: Tensor | None  # (m, m)
    out_bias: Tensor | None
    mid_weight: Tensor
    mid_bias: Tensor
    weight1: Tensor  # (f, m)
    bias1: Tensor
    weight2: Tensor  # (m, f)
    bias2: Tensor
    last_weight: Tensor | None
    last_bias: Tensor | None


@dataclass(frozen=True, kw_only=True)
class BehindAttention:
    """dropout:   share that is dropped, 0 in evaluation.
    eps:       of the norms.
    product:   dtype in which matrices are multiplied.
    stream:    dtype of the sums and of the result.
    recompute: keep x and attended alone, and run everything a second time in backward.
    spends:    backward may write the gradient of `attended` over it, because nobody else has it, and who runs backward
               twice makes it again.
    tile:      rows at a time in backward, at most, where that is so; None takes all of them at once. Forward, which has
               no gradients to hold, takes twice as many.
    """

    dropout: float
    eps: float
    product: torch.dtype
    stream: torch.dtype
    recompute: bool = False
    spends: bool = False
    tile: int | None = None


def behind_attention(x: Tensor, attended: Tensor, weights: Weights, settings: BehindAttention) -> Tensor:
    """x, attended: (..., m) -> (..., m) in `settings.stream`; for inputs that `why_not` takes.

    Raises nothing of its own: shapes are those of a block.
    """
    rows, attended_rows = (tensor.reshape(-1, tensor.shape[-1]).contiguous() for tensor in (x, attended))
    # Drawn on the device by torch's generator, so that recomputation under a restored state draws the same.
    seeds = torch.empty(SEEDS, dtype=torch.int64, device=x.device)
    if settings.dropout > 0:
        seeds.random_()
    kept = _Inputs()
    if settings.recompute and torch.is_grad_enabled():
        rows, attended_rows = _Keep.apply(rows, attended_rows, kept)  # pyright: ignore[reportGeneralTypeIssues]
    return _BehindAttention.apply(rows, attended_rows, seeds, settings, kept, *weights).view(x.shape)  # pyright: ignore


class _Inputs:
    """Where the tensors that a node of the graph keeps can be had by the nodes behind it, while it has them."""

    node: Any = None

    def read(self) -> tuple[Tensor, ...]:
        return self.node.saved_tensors


class _Keep(torch.autograd.Function):
    """Keeps its inputs for the function that follows, and passes them on.

    A function's own inputs are kept when it has run. Inside of a block that is checkpointed it would therefore run when
    the block is run again, for a result that nobody reads, and a third time for its gradient. Where all that is kept
    has been kept before it runs, torch's checkpointing stops in front of it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, attended: Tensor, kept: _Inputs) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, attended)
        kept.node = ctx
        return x.view_as(x), attended.view_as(attended)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x: Tensor, d_attended: Tensor) -> tuple[Tensor, Tensor, None]:
        return d_x, d_attended, None


class _Kept(NamedTuple):
    """What backward needs of some rows: sums, statistics of their norms, hidden features."""

    sum1: Tensor
    mean1: Tensor
    rstd1: Tensor
    hidden: Tensor
    sum2: Tensor | None = None
    mean2: Tensor | None = None
    rstd2: Tensor | None = None


class _BehindAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        attended: Tensor,
        seeds: Tensor,
        settings: BehindAttention,
        inputs: _Inputs,
        *parameters: Tensor | None,
    ) -> Tensor:
        ctx.settings, ctx.inputs, ctx.seeds, ctx.weights = settings, inputs, seeds, Weights._make(parameters)
        halves = _Halves(ctx.weights, settings, seeds)
        if not settings.recompute:
            out, kept = halves.forward(x, attended, 0)
            ctx.save_for_backward(attended, *kept)
            return out
        out = torch.empty(x.shape, dtype=settings.stream, device=x.device)
        for rows in even_tiles(x.shape[0], None if settings.tile is None else 2 * settings.tile):
            halves.forward(x[rows], attended[rows], rows.start, out[rows])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        settings: BehindAttention = ctx.settings
        halves = _Halves(ctx.weights, settings, ctx.seeds)
        halves.learns = Weights._make(ctx.needs_input_grad[-len(Weights._fields) :])
        d_out = d_out.contiguous()
        if not settings.recompute:
            attended, *kept = ctx.saved_tensors
            d_x, d_attended = halves.backward(d_out, attended, _Kept._make(kept), 0)
            return d_x, d_attended, None, None, None, *halves.gradients()
        x, attended = ctx.inputs.read()
        d_x = torch.empty(x.shape, dtype=settings.stream, device=x.device)
        # Where nothing lies between the sum and `attended`, both gradients are one.
        is_one = ctx.weights.out_weight is None and settings.dropout == 0 and attended.dtype == settings.stream
        if is_one:
            d_attended = d_x
        elif settings.spends:
            d_attended = attended
        else:
            d_attended = torch.empty_like(attended)
        for rows in even_tiles(x.shape[0], settings.tile):
            kept = halves.forward(x[rows], attended[rows], rows.start)[1]
            halves.backward(
                d_out[rows], attended[rows], kept, rows.start, d_x[rows], None if is_one else d_attended[rows]
            )
            del kept
        return d_x, d_attended, None, None, None, *halves.gradients()


class _Halves:
    """Both halves over some rows, forward and backward; gradients of the weights add up from one call to the next."""

    def __init__(self, weights: Weights, settings: BehindAttention, seeds: Tensor) -> None:
        # Late, because it imports triton.
        from longtag.fused import relu_dropout, sum_norm

        self._relu_dropout, self._sum_norm = relu_dropout, sum_norm
        self.weights, self.settings, self.seeds = weights, settings, seeds
        # What products read; kernels take the rest as it is.
        self._low = weights._replace(
            out_weight=None if weights.out_weight is None else weights.out_weight.to(settings.product),
            weight1=weights.weight1.to(settings.product),
            bias1=weights.bias1.to(settings.product),
            weight2=weights.weight2.to(settings.product),
        )
        self._mid = sum_norm.Norm(weights.mid_weight, weights.mid_bias, settings.eps)
        self._last = None
        if weights.last_weight is not None and weights.last_bias is not None:
            self._last = sum_norm.Norm(weights.last_weight, weights.last_bias, settings.eps)
        self._sums: dict[str, Tensor] = {}
        # Of the matrices, those whose gradient is worth a product.
        self.learns: Any = Weights._make([True] * len(Weights._fields))

    def forward(self, x: Tensor, attended: Tensor, first_row: int, into: Tensor | None = None) -> tuple[Tensor, _Kept]:
        """(n, m) each -> (n, m), and what backward needs. into: memory of the result."""
        settings, low, sum_norm = self.settings, self._low, self._sum_norm.sum_norm
        branch = attended if low.out_weight is None else attended @ low.out_weight.mT
        sum1, y, stats1 = sum_norm(
            x, branch, low.out_bias, self._dropout(0, first_row), self._mid,
            sum_dtype=settings.stream, out_dtype=settings.product,
        )  # fmt: skip
        assert stats1 is not None
        del branch
        if settings.dropout > 0:
            hidden = y @ low.weight1.mT
            self._relu_dropout.relu_dropout_(hidden, low.bias1, self._dropout(1, first_row))
        else:
            # Bias and ReLU inside of the product, where cuBLAS can.
            hidden = torch.ops.aten._addmm_activation(low.bias1, y, low.weight1.mT)
        del y
        sum2, out, stats2 = sum_norm(
            sum1, hidden @ low.weight2.mT, low.bias2, self._dropout(2, first_row), self._last,
            sum_dtype=settings.stream, out_dtype=settings.stream,
            base_norm=None if self._last is None else (self._mid, stats1), into=into,
        )  # fmt: skip
        kept = _Kept(sum1, stats1.mean, stats1.rstd, hidden)
        if stats2 is not None:
            kept = kept._replace(sum2=sum2, mean2=stats2.mean, rstd2=stats2.rstd)
        return out, kept

    def backward(
        self,
        d_out: Tensor,
        attended: Tensor,
        kept: _Kept,
        first_row: int,
        d_x: Tensor | None = None,
        d_attended: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Gradients (n, m) of x and of attended. d_x, d_attended: their memory."""
        settings, low, sum_norm = self.settings, self._low, self._sum_norm
        stats1 = sum_norm.Stats(kept.mean1, kept.rstd1)
        dropout2 = self._dropout(2, first_row)
        if self._last is None:
            second = sum_norm.sum_norm_backward((), d_out, d_out, None, None, dropout2, branch_dtype=settings.product)
        else:
            assert kept.sum2 is not None
            assert kept.mean2 is not None
            assert kept.rstd2 is not None
            stats2 = sum_norm.Stats(kept.mean2, kept.rstd2)
            second = sum_norm.sum_norm_backward(
                (d_out,), None, kept.sum2, self._last, stats2, dropout2, branch_dtype=settings.product
            )
        self._add(bias2=second.bias, last_weight=second.weight, last_bias=second.norm_bias)
        if self.learns.weight2:
            self._add(weight2=second.branch.mT @ kept.hidden)
        d_hidden, d_bias1 = self._relu_dropout.times_slope(second.branch, low.weight2, kept.hidden, settings.dropout)
        self._add(bias1=d_bias1)
        if self.learns.weight1:
            self._add(weight1=d_hidden.mT @ sum_norm.normed(kept.sum1, self._mid, stats1, settings.product))
        d_y = d_hidden @ low.weight1
        del d_hidden
        normed, summed = ((d_y,), d_out) if self._last is None else ((second.total, d_y), None)
        first = sum_norm.sum_norm_backward(
            normed, summed, kept.sum1, self._mid, stats1, self._dropout(0, first_row),
            branch_dtype=settings.product, into=d_x,
        )  # fmt: skip
        self._add(mid_weight=first.weight, mid_bias=first.norm_bias)
        if low.out_weight is None:
            return first.total, first.branch if d_attended is None else d_attended.copy_(first.branch)
        self._add(out_bias=first.bias)
        if self.learns.out_weight:
            self._add(out_weight=first.branch.mT @ attended)
        if d_attended is None or d_attended.dtype != settings.product:
            found = first.branch @ low.out_weight
            return first.total, found if d_attended is None else d_attended.copy_(found)
        return first.total, torch.mm(first.branch, low.out_weight, out=d_attended)

    def gradients(self) -> tuple[Tensor | None, ...]:
        """Of all weights, in their order and dtypes."""
        found = (self._sums.get(name) for name in Weights._fields)
        return tuple(
            None if gradient is None or weight is None else gradient.to(weight.dtype)
            for gradient, weight in zip(found, self.weights, strict=True)
        )

    def _add(self, **gradients: Tensor | None) -> None:
        for name, gradient in gradients.items():
            if gradient is None:
                continue
            if name in self._sums:
                # In float32 from the second tile on.
                self._sums[name] = self._sums[name].float().add_(gradient)
            else:
                self._sums[name] = gradient

    def _dropout(self, place: int, first_row: int) -> Any:
        return self._sum_norm.Dropout(self.settings.dropout, self.seeds, place, first_row)
