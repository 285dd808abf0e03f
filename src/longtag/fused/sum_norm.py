"""A residual sum and its norm in one pass over memory, and the gradients of both in another.

    sum = base + dropout(branch + bias);  out = layer_norm(sum)

The base may itself be the norm of an earlier sum, which is then computed from that sum and never stored.

Shape suffixes: n rows, r rows of a program, f features.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from longtag.fused.dropout import keeps
from longtag.fused.launch import is_fake, power_of_two, programs_of
from sparse_attention.triton.kernel import Kernel


class Norm(NamedTuple):
    """weight, bias: (f,). eps: added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


class Stats(NamedTuple):
    """Of each row: (n,) float32."""

    mean: Tensor
    rstd: Tensor


@dataclass(frozen=True)
class Dropout:
    """p: share that is dropped. seeds: (s,) int64 on the device. place: which of them. first_row: number of row 0."""

    p: float
    seeds: Tensor
    place: int
    first_row: int = 0

    @property
    def numbers(self) -> tuple[int, float]:
        return self.first_row, self.p

    @property
    def constants(self) -> dict[str, Any]:
        return {"DROPS": self.p > 0, "SEED": self.place}


def sum_norm(
    base: Tensor,
    branch: Tensor,
    bias: Tensor | None,
    dropout: Dropout,
    norm: Norm | None,
    *,
    sum_dtype: torch.dtype,
    out_dtype: torch.dtype,
    base_norm: tuple[Norm, Stats] | None = None,
    into: Tensor | None = None,
) -> tuple[Tensor, Tensor, Stats | None]:
    """The sum (n, f) in `sum_dtype`, its norm (n, f) in `out_dtype` and what backward needs to know of the rows.

    base, branch: (n, f), contiguous. bias: (f,). base_norm: read the base through this norm first. into: the memory
    (n, f) of what comes second. Without a norm the sum is given twice.
    """
    num_rows, features = base.shape
    out = torch.empty((num_rows, features), dtype=out_dtype, device=base.device) if into is None else into
    total, stats = out, None
    if norm is not None:
        total = torch.empty((num_rows, features), dtype=sum_dtype, device=base.device)
        stats = Stats(*torch.empty((2, num_rows), dtype=torch.float32, device=base.device))
    if is_fake(base):
        return total, out, stats
    empty = dropout.seeds
    of_base, stats_of_base = base_norm or (None, None)
    rows = _rows_of(features)
    _forward_kernel[(-(-num_rows // rows),)](
        base, branch, empty if bias is None else bias, total, out,
        *((empty, empty) if norm is None else (norm.weight, norm.bias)),
        *((empty, empty) if stats is None else stats),
        *((empty, empty) if of_base is None else (of_base.weight, of_base.bias)),
        *(stats_of_base or (empty, empty)), dropout.seeds,
        num_rows, 0.0 if norm is None else norm.eps, *dropout.numbers, **dropout.constants,
        HAS_BIAS=bias is not None, NORMS=norm is not None, NORMS_BASE=base_norm is not None,
        FEATURES=features, BLOCK=power_of_two(features), ROWS=rows, num_warps=_warps_of(features),
    )  # fmt: skip
    return total, out, stats


class Gradients(NamedTuple):
    """total, branch: (n, f), the same tensor where they are equal. weight, norm_bias, bias: (f,) float32 or None."""

    total: Tensor
    branch: Tensor
    weight: Tensor | None
    norm_bias: Tensor | None
    bias: Tensor


def sum_norm_backward(
    d_outs: tuple[Tensor, ...],
    d_total: Tensor | None,
    total: Tensor,
    norm: Norm | None,
    stats: Stats | None,
    dropout: Dropout,
    *,
    branch_dtype: torch.dtype,
    into: Tensor | None = None,
) -> Gradients:
    """Gradients of the base (that of the sum), the branch, the norm's weight and bias, and the branch's bias.

    d_outs:  up to two gradients (n, f) of the normed sum, which are added up; none without a norm.
    d_total: gradient (n, f) of the sum itself, where something else reads it.
    into:    the memory (n, f) of the base's gradient; without a norm it is `d_total`.
    """
    num_rows, features = total.shape
    device = total.device
    d_sum = d_total
    if norm is not None or d_sum is None:
        d_sum = torch.empty_like(total) if into is None else into
    splits = dropout.p > 0 or branch_dtype != d_sum.dtype
    d_branch = torch.empty((num_rows, features), dtype=branch_dtype, device=device) if splits else d_sum
    rows = _rows_of(features)
    programs = programs_of(device, -(-num_rows // rows))
    sums = torch.empty((3, programs, features), dtype=torch.float32, device=device)
    if not is_fake(total):
        empty = dropout.seeds
        first, second = (*d_outs, empty, empty)[:2]
        _backward_kernel[(programs,)](
            first, second, empty if d_total is None else d_total, total,
            empty if norm is None else norm.weight, *(stats or (empty, empty)), d_sum, d_branch, sums, dropout.seeds,
            num_rows, *dropout.numbers, **dropout.constants,
            NUM_OUTS=len(d_outs), HAS_TOTAL=d_total is not None, NORMS=norm is not None, SPLITS=splits,
            FEATURES=features, BLOCK=power_of_two(features), ROWS=rows, num_warps=_warps_of(features),
        )  # fmt: skip
    d_weight, d_norm_bias, d_bias = sums.sum(1)
    if norm is None:
        return Gradients(d_sum, d_branch, None, None, d_bias)
    return Gradients(d_sum, d_branch, d_weight, d_norm_bias, d_bias)


def _rows_of(features: int) -> int:
    """Rows that a program holds at once; with their warps the fastest of those tried on an H100 for 768 features."""
    return max(1, 2048 // power_of_two(features))


def _warps_of(features: int) -> int:
    return min(16, max(4, power_of_two(features) // 512))


@Kernel
@triton.jit(do_not_specialize=["num_rows", "first_row"])
def _forward_kernel(
    base_ptr, branch_ptr, bias_ptr, total_ptr, out_ptr, weight_ptr, norm_bias_ptr, mean_ptr, rstd_ptr,
    base_weight_ptr, base_bias_ptr, base_mean_ptr, base_rstd_ptr, seed_ptr, num_rows, eps, first_row, dropout,
    DROPS: tl.constexpr, SEED: tl.constexpr, HAS_BIAS: tl.constexpr, NORMS: tl.constexpr, NORMS_BASE: tl.constexpr,
    FEATURES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row_r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    feature_f = tl.arange(0, BLOCK)
    real_r, real_f = row_r < num_rows, feature_f < FEATURES
    real_rf = real_r[:, None] & real_f[None, :]
    at_rf = row_r[:, None] * FEATURES + feature_f[None, :]

    total_rf = tl.load(branch_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
    if HAS_BIAS:
        total_rf += tl.load(bias_ptr + feature_f, mask=real_f, other=0.0).to(tl.float32)[None, :]
    if DROPS:
        kept_rf = keeps(tl.load(seed_ptr + SEED), row_r + first_row, feature_f, dropout)
        total_rf = tl.where(kept_rf, total_rf / (1 - dropout), 0.0)
    base_rf = tl.load(base_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
    if NORMS_BASE:
        base_rf = _with_known_stats(
            base_rf, row_r, real_r, feature_f, real_f, base_weight_ptr, base_bias_ptr, base_mean_ptr, base_rstd_ptr
        )
    # As it is stored, so that backward sees what forward saw.
    total_rf = (total_rf + base_rf).to(total_ptr.dtype.element_ty)
    tl.store(total_ptr + at_rf, total_rf, mask=real_rf)
    if NORMS:
        total_rf = total_rf.to(tl.float32)
        mean_r = tl.sum(tl.where(real_f[None, :], total_rf, 0.0), 1) / FEATURES
        off_rf = tl.where(real_f[None, :], total_rf - mean_r[:, None], 0.0)
        rstd_r = 1 / tl.sqrt(tl.sum(off_rf * off_rf, 1) / FEATURES + eps)
        weight_f = tl.load(weight_ptr + feature_f, mask=real_f, other=0.0).to(tl.float32)
        bias_f = tl.load(norm_bias_ptr + feature_f, mask=real_f, other=0.0).to(tl.float32)
        out_rf = off_rf * rstd_r[:, None] * weight_f[None, :] + bias_f[None, :]
        tl.store(out_ptr + at_rf, out_rf.to(out_ptr.dtype.element_ty), mask=real_rf)
        tl.store(mean_ptr + row_r, mean_r, mask=real_r)
        tl.store(rstd_ptr + row_r, rstd_r, mask=real_r)


@Kernel
@triton.jit(do_not_specialize=["num_rows", "first_row"])
def _backward_kernel(
    d_out_ptr, d_out2_ptr, d_total_ptr, total_ptr, weight_ptr, mean_ptr, rstd_ptr, d_sum_ptr, d_branch_ptr, sums_ptr,
    seed_ptr, num_rows, first_row, dropout,
    DROPS: tl.constexpr, SEED: tl.constexpr, NUM_OUTS: tl.constexpr, HAS_TOTAL: tl.constexpr, NORMS: tl.constexpr,
    SPLITS: tl.constexpr, FEATURES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    program, programs = tl.program_id(0), tl.num_programs(0)
    feature_f = tl.arange(0, BLOCK)
    real_f = feature_f < FEATURES
    d_weight_f = tl.zeros([BLOCK], tl.float32)
    d_norm_bias_f = tl.zeros([BLOCK], tl.float32)
    d_bias_f = tl.zeros([BLOCK], tl.float32)
    if NORMS:
        weight_f = tl.load(weight_ptr + feature_f, mask=real_f, other=0.0).to(tl.float32)
    for first in range(program * ROWS, num_rows, programs * ROWS):
        row_r = (first + tl.arange(0, ROWS)).to(tl.int64)
        real_r = row_r < num_rows
        real_rf = real_r[:, None] & real_f[None, :]
        at_rf = row_r[:, None] * FEATURES + feature_f[None, :]
        d_sum_rf = tl.zeros([ROWS, BLOCK], tl.float32)
        if HAS_TOTAL:
            d_sum_rf = tl.load(d_total_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
        if NORMS:
            d_out_rf = tl.load(d_out_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
            if NUM_OUTS == 2:
                d_out_rf += tl.load(d_out2_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
            mean_r = tl.load(mean_ptr + row_r, mask=real_r, other=0.0)
            rstd_r = tl.load(rstd_ptr + row_r, mask=real_r, other=0.0)
            total_rf = tl.load(total_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
            normed_rf = tl.where(real_rf, (total_rf - mean_r[:, None]) * rstd_r[:, None], 0.0)
            d_weight_f += tl.sum(d_out_rf * normed_rf, 0)
            d_norm_bias_f += tl.sum(d_out_rf, 0)
            d_normed_rf = d_out_rf * weight_f[None, :]
            along_r = tl.sum(d_normed_rf * normed_rf, 1) / FEATURES
            mean_r = tl.sum(d_normed_rf, 1) / FEATURES
            d_sum_rf += (d_normed_rf - mean_r[:, None] - normed_rf * along_r[:, None]) * rstd_r[:, None]
            tl.store(d_sum_ptr + at_rf, d_sum_rf.to(d_sum_ptr.dtype.element_ty), mask=real_rf)
        if DROPS:
            kept_rf = keeps(tl.load(seed_ptr + SEED), row_r + first_row, feature_f, dropout)
            d_sum_rf = tl.where(kept_rf, d_sum_rf / (1 - dropout), 0.0)
        if SPLITS:
            tl.store(d_branch_ptr + at_rf, d_sum_rf.to(d_branch_ptr.dtype.element_ty), mask=real_rf)
        d_bias_f += tl.sum(tl.where(real_rf, d_sum_rf, 0.0), 0)
    at_f = program.to(tl.int64) * FEATURES + feature_f
    step = programs.to(tl.int64) * FEATURES
    tl.store(sums_ptr + at_f, d_weight_f, mask=real_f)
    tl.store(sums_ptr + step + at_f, d_norm_bias_f, mask=real_f)
    tl.store(sums_ptr + 2 * step + at_f, d_bias_f, mask=real_f)


def normed(total: Tensor, norm: Norm, stats: Stats, dtype: torch.dtype) -> Tensor:
    """The norm (n, f) of a sum whose rows are known already."""
    num_rows, features = total.shape
    out = torch.empty((num_rows, features), dtype=dtype, device=total.device)
    if not is_fake(total):
        rows = _rows_of(features)
        _norm_kernel[(-(-num_rows // rows),)](
            total, norm.weight, norm.bias, *stats, out, num_rows,
            FEATURES=features, BLOCK=power_of_two(features), ROWS=rows, num_warps=_warps_of(features),
        )  # fmt: skip
    return out


@Kernel
@triton.jit(do_not_specialize=["num_rows"])
def _norm_kernel(
    total_ptr, weight_ptr, bias_ptr, mean_ptr, rstd_ptr, out_ptr, num_rows,
    FEATURES: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row_r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    feature_f = tl.arange(0, BLOCK)
    real_r, real_f = row_r < num_rows, feature_f < FEATURES
    real_rf = real_r[:, None] & real_f[None, :]
    at_rf = row_r[:, None] * FEATURES + feature_f[None, :]
    total_rf = tl.load(total_ptr + at_rf, mask=real_rf, other=0.0).to(tl.float32)
    out_rf = _with_known_stats(total_rf, row_r, real_r, feature_f, real_f, weight_ptr, bias_ptr, mean_ptr, rstd_ptr)
    tl.store(out_ptr + at_rf, out_rf.to(out_ptr.dtype.element_ty), mask=real_rf)


@triton.jit
def _with_known_stats(x_rf, row_r, real_r, feature_f, real_f, weight_ptr, bias_ptr, mean_ptr, rstd_ptr):
    """The norm of rows whose mean and deviation are known."""
    mean_r = tl.load(mean_ptr + row_r, mask=real_r, other=0.0)
    rstd_r = tl.load(rstd_ptr + row_r, mask=real_r, other=0.0)
    weight_f = tl.load(weight_ptr + feature_f, mask=real_f, other=0.0).to(tl.float32)
    bias_f = tl.load(bias_ptr + feature_f, mask=real_f, other=0.0).to(tl.float32)
    return (x_rf - mean_r[:, None]) * rstd_r[:, None] * weight_f[None, :] + bias_f[None, :]
