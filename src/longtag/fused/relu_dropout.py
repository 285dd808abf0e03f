"""dropout(relu(x + bias)) in place, and its gradient in place, which needs nothing but the result: what is 0 had none.

Shape suffixes: n rows, r rows of a program, f features.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from longtag.fused import masked_product
from longtag.fused.dropout import keeps
from longtag.fused.launch import is_fake, programs_of
from longtag.fused.sum_norm import Dropout
from sparse_attention.triton.kernel import Kernel

ROWS, FEATURES = 8, 512
"""Held by a program at once: the fastest of those tried on an H100."""


def relu_dropout_(x: Tensor, bias: Tensor, dropout: Dropout) -> None:
    """x (n, f), contiguous, becomes dropout(relu(x + bias)); bias (f,)."""
    if is_fake(x):
        return
    num_rows, features = x.shape
    _forward_kernel[(-(-num_rows // ROWS), -(-features // FEATURES))](
        x, bias, dropout.seeds, num_rows, features, *dropout.numbers, **dropout.constants,
        ROWS=ROWS, FEATURES=FEATURES, num_warps=4,
    )  # fmt: skip


def times_slope(gradient: Tensor, weight: Tensor, out: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """The gradient (n, f) of what `relu_dropout_` took, and that of the bias (f,) in float32.

    gradient (n, m), of a layer with weight (m, f) that read the result `out` (n, f).
    """
    if masked_product.why_not(gradient, weight) is None:
        return masked_product.masked_product(gradient, weight, out, 1 / (1 - p))
    product = gradient @ weight
    return product, relu_dropout_backward_(product, out, p)


def relu_dropout_backward_(gradient: Tensor, out: Tensor, p: float) -> Tensor:
    """The gradient (n, f) of the result becomes that of x; returns that of the bias, (f,) float32.

    out: (n, f), the result: what was dropped or cut off is 0 in it.
    """
    num_rows, features = out.shape
    programs = programs_of(out.device, -(-num_rows // ROWS))
    sums = torch.empty((programs, features), dtype=torch.float32, device=out.device)
    if not is_fake(out):
        _backward_kernel[(programs, -(-features // FEATURES))](
            gradient, out, sums, num_rows, features, 1 / (1 - p), ROWS=ROWS, FEATURES=FEATURES, num_warps=4
        )
    return sums.sum(0)


@Kernel
@triton.jit(do_not_specialize=["num_rows", "first_row"])
def _forward_kernel(
    x_ptr, bias_ptr, seed_ptr, num_rows, features, first_row, dropout,
    DROPS: tl.constexpr, SEED: tl.constexpr, ROWS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    row_r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    feature_f = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    real_rf = (row_r < num_rows)[:, None] & (feature_f < features)[None, :]
    at_rf = row_r[:, None] * features + feature_f[None, :]
    x_rf = tl.load(x_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
    x_rf += tl.load(bias_ptr + feature_f, mask=feature_f < features, other=0.0).to(tl.float32)[None, :]
    # A NaN stays one.
    x_rf = tl.where(x_rf < 0, 0.0, x_rf)
    if DROPS:
        kept_rf = keeps(tl.load(seed_ptr + SEED), row_r + first_row, feature_f, dropout)
        x_rf = tl.where(kept_rf, x_rf / (1 - dropout), 0.0)
    tl.store(x_ptr + at_rf, x_rf.to(x_ptr.dtype.element_ty), mask=real_rf)


@Kernel
@triton.jit(do_not_specialize=["num_rows"])
def _backward_kernel(
    gradient_ptr, out_ptr, sums_ptr, num_rows, features, factor, ROWS: tl.constexpr, FEATURES: tl.constexpr
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    feature_f = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)
    sum_f = tl.zeros([FEATURES], tl.float32)
    for first in range(program * ROWS, num_rows, programs * ROWS):
        row_r = (first + tl.arange(0, ROWS)).to(tl.int64)
        real_rf = (row_r < num_rows)[:, None] & (feature_f < features)[None, :]
        at_rf = row_r[:, None] * features + feature_f[None, :]
        out_rf = tl.load(out_ptr + at_rf, mask=real_rf, other=0.0)
        gradient_rf = tl.load(gradient_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
        gradient_rf = tl.where(out_rf == 0, 0.0, gradient_rf * factor)
        sum_f += tl.sum(gradient_rf, 0)
        tl.store(gradient_ptr + at_rf, gradient_rf.to(gradient_ptr.dtype.element_ty), mask=real_rf)
    tl.store(sums_ptr + program.to(tl.int64) * features + feature_f, sum_f, mask=feature_f < features)
