"""Attention over two sets of keys without a key in common, made into attention over both.

    weight_i = exp(lse_i - lse)       lse = log sum_i exp(lse_i)       out = sum_i weight_i out_i

and backward, with d_x the gradient that reaches x:

    d_out_i = weight_i d_out          d_lse_i = weight_i (d_out . (out_i - out) + d_lse)

Two passes over memory in all. Shape suffixes: b batch, h heads, n queries of the sequence, q queries of a program, d
head_dim.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl
from torch import Tensor

from .block_sparse.launch import padded
from .block_sparse.tiles import store_tile
from .kernel import Kernel

ELEMENTS = 2048
"""Of each matrix that a program holds: 16 for each of its threads."""


def merge(first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor, out: Tensor, lse: Tensor) -> None:
    """Fill out (b, h, n, d) and lse (b, h, n) from two of each; any strides with contiguous last dims."""
    grid, constants = _launch(out)
    _merge_kernel[grid](
        first, first_lse, second, second_lse, out, lse, out.shape[2], out.shape[1],
        *first.stride()[:3], *first_lse.stride()[:2], *second.stride()[:3], *second_lse.stride()[:2],
        *out.stride()[:3], *lse.stride()[:2], **constants,
    )  # fmt: skip


def merge_backward(
    d_out: Tensor, d_lse: Tensor | None, first: Tensor, first_lse: Tensor, second: Tensor, second_lse: Tensor,
    d_outs: tuple[Tensor, Tensor], d_lses: tuple[Tensor, Tensor],
) -> None:  # fmt: skip
    """Fill the gradients of the two results; d_outs share strides, and so do d_lses. Strides as in `merge`."""
    grid, constants = _launch(d_out)
    reached = d_lses[0] if d_lse is None else d_lse
    _merge_backward_kernel[grid](
        d_out, reached, first, first_lse, second, second_lse, *d_outs, *d_lses, d_out.shape[2], d_out.shape[1],
        *d_out.stride()[:3], *reached.stride()[:2],
        *first.stride()[:3], *first_lse.stride()[:2], *second.stride()[:3], *second_lse.stride()[:2],
        *d_outs[0].stride()[:3], *d_lses[0].stride()[:2], HAS_D_LSE=d_lse is not None, **constants,
    )  # fmt: skip


def _launch(like: Tensor) -> tuple[tuple[int, int], dict[str, int]]:
    batch, heads, num_queries, head_dim = like.shape
    width = padded(head_dim)
    queries = max(1, ELEMENTS // width)
    # Heads of a token lie side by side: their programs run side by side.
    grid = (heads * -(-num_queries // queries), batch)
    return grid, {"HEAD_DIM": head_dim, "BLOCK_D": width, "QUERIES": queries}


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _merge_kernel(
    first_ptr, first_lse_ptr, second_ptr, second_lse_ptr, out_ptr, lse_ptr, num_queries, heads,
    first_stride_b, first_stride_h, first_stride_n, first_lse_stride_b, first_lse_stride_h,
    second_stride_b, second_stride_h, second_stride_n, second_lse_stride_b, second_lse_stride_h,
    out_stride_b, out_stride_h, out_stride_n, lse_stride_b, lse_stride_h,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    batch, head, base = _place(heads, QUERIES)
    query_q = base + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    lse_a_q = _load_lse(first_lse_ptr + batch * first_lse_stride_b + head * first_lse_stride_h, query_q, real_q)
    lse_b_q = _load_lse(second_lse_ptr + batch * second_lse_stride_b + head * second_lse_stride_h, query_q, real_q)
    share_a_q, share_b_q, lse_q = _shares(lse_a_q, lse_b_q)
    first_ptr += batch * first_stride_b + head * first_stride_h
    second_ptr += batch * second_stride_b + head * second_stride_h
    out_a_qd = _load_rows(first_ptr, query_q, first_stride_n, real_q, HEAD_DIM, BLOCK_D)
    out_b_qd = _load_rows(second_ptr, query_q, second_stride_n, real_q, HEAD_DIM, BLOCK_D)
    out_qd = share_a_q[:, None] * out_a_qd.to(tl.float32) + share_b_q[:, None] * out_b_qd.to(tl.float32)
    out_ptr += batch * out_stride_b + head * out_stride_h
    store_tile(out_ptr, query_q, out_stride_n, real_q, out_qd, HEAD_DIM, BLOCK_D)
    tl.store(lse_ptr + batch * lse_stride_b + head * lse_stride_h + query_q, lse_q, mask=real_q)


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _merge_backward_kernel(
    d_out_ptr, d_lse_ptr, first_ptr, first_lse_ptr, second_ptr, second_lse_ptr,
    d_first_ptr, d_second_ptr, d_first_lse_ptr, d_second_lse_ptr, num_queries, heads,
    d_out_stride_b, d_out_stride_h, d_out_stride_n, d_lse_stride_b, d_lse_stride_h,
    first_stride_b, first_stride_h, first_stride_n, first_lse_stride_b, first_lse_stride_h,
    second_stride_b, second_stride_h, second_stride_n, second_lse_stride_b, second_lse_stride_h,
    to_stride_b, to_stride_h, to_stride_n, to_lse_stride_b, to_lse_stride_h,
    HAS_D_LSE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    batch, head, base = _place(heads, QUERIES)
    query_q = base + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    lse_a_q = _load_lse(first_lse_ptr + batch * first_lse_stride_b + head * first_lse_stride_h, query_q, real_q)
    lse_b_q = _load_lse(second_lse_ptr + batch * second_lse_stride_b + head * second_lse_stride_h, query_q, real_q)
    share_a_q, share_b_q, _ = _shares(lse_a_q, lse_b_q)
    d_out_ptr += batch * d_out_stride_b + head * d_out_stride_h
    first_ptr += batch * first_stride_b + head * first_stride_h
    second_ptr += batch * second_stride_b + head * second_stride_h
    d_out_qd = _load_rows(d_out_ptr, query_q, d_out_stride_n, real_q, HEAD_DIM, BLOCK_D)
    d_out_qd = d_out_qd.to(tl.float32)
    out_a_qd = _load_rows(first_ptr, query_q, first_stride_n, real_q, HEAD_DIM, BLOCK_D)
    out_b_qd = _load_rows(second_ptr, query_q, second_stride_n, real_q, HEAD_DIM, BLOCK_D)
    d_share_a_q = tl.sum(d_out_qd * out_a_qd.to(tl.float32), 1)
    d_share_b_q = tl.sum(d_out_qd * out_b_qd.to(tl.float32), 1)
    shift_q = -(share_a_q * d_share_a_q + share_b_q * d_share_b_q)
    if HAS_D_LSE:
        d_lse_ptr += batch * d_lse_stride_b + head * d_lse_stride_h
        shift_q += tl.load(d_lse_ptr + query_q, mask=real_q, other=0.0)
    to_lse = batch * to_lse_stride_b + head * to_lse_stride_h + query_q
    # Without a share no gradient, whatever reaches the lse of a query without keys: that may well be NaN.
    d_lse_a_q = tl.where(share_a_q == 0, 0.0, share_a_q * (d_share_a_q + shift_q))
    d_lse_b_q = tl.where(share_b_q == 0, 0.0, share_b_q * (d_share_b_q + shift_q))
    tl.store(d_first_lse_ptr + to_lse, d_lse_a_q, mask=real_q)
    tl.store(d_second_lse_ptr + to_lse, d_lse_b_q, mask=real_q)
    to = batch * to_stride_b + head * to_stride_h
    d_a_qd, d_b_qd = share_a_q[:, None] * d_out_qd, share_b_q[:, None] * d_out_qd
    store_tile(d_first_ptr + to, query_q, to_stride_n, real_q, d_a_qd, HEAD_DIM, BLOCK_D)
    store_tile(d_second_ptr + to, query_q, to_stride_n, real_q, d_b_qd, HEAD_DIM, BLOCK_D)


@triton.jit
def _place(heads, QUERIES: tl.constexpr):
    """batch, head and the first query of a program."""
    program = tl.program_id(0)
    return tl.program_id(1).to(tl.int64), (program % heads).to(tl.int64), program // heads * QUERIES


@triton.jit
def _load_lse(lse_ptr, query_q, real_q):
    return tl.load(lse_ptr + query_q, mask=real_q, other=float("-inf"))


@triton.jit
def _load_rows(start, query_q, stride, real_q, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    dim_d = tl.arange(0, BLOCK_D)
    mask_qd = real_q[:, None] & (dim_d < HEAD_DIM)[None, :]
    return tl.load(start + (query_q.to(tl.int64) * stride)[:, None] + dim_d[None, :], mask=mask_qd, other=0.0)


@triton.jit
def _shares(lse_a_q, lse_b_q):
    """What share of the whole each of two parts has, 0 of nothing, and the lse of the whole."""
    top_q = tl.maximum(lse_a_q, lse_b_q)
    # Where there is no key at all, -inf is not to be subtracted from -inf.
    base_q = tl.where(top_q == float("-inf"), 0.0, top_q)
    weight_a_q, weight_b_q = tl.exp(lse_a_q - base_q), tl.exp(lse_b_q - base_q)
    total_q = weight_a_q + weight_b_q
    safe_q = tl.where(total_q == 0, 1.0, total_q)
    lse_q = tl.where(total_q == 0, float("-inf"), base_q + tl.log(safe_q))
    return weight_a_q / safe_q, weight_b_q / safe_q, lse_q
