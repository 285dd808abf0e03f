"""Backward pass in two output-owned steps, without atomics: by query (dq, and two numbers for each edge), then by key.

    weight  = exp(score - lse)
    d_score = scale * weight * (d_out . v  -  sum over the query's edges of weight * (d_out . v)  +  d_lse)
    dq = sum of d_score k     over the edges of a query
    dk = sum of d_score q     over the edges of a key
    dv = sum of weight d_out  over the edges of a key

weight and d_score, float32, are the only memory that grows with the number of edges. Where all heads together would
need more than `SCRATCH_BYTES`, heads go through in groups. For short lists forward keeps the weights, and v and k are
gathered one after the other: one matrix of a head stays in the L2 cache where two do not.

Shape suffixes: b batch, h heads, n queries of the sequence, m its keys, q queries of a program, s slots held at once,
d head_dim.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from . import by_key, wide
from .launch import Tile, Tiles, ceil_div, head_stride, is_far, power_of_two, takes_passes
from .rows import dims_of, gather_rows, load_rows, store_rows, widen

SCRATCH_BYTES = 192 * 2**20

LOG2_E = tl.constexpr(1.4426950408889634)


def backward(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor | None, lse: Tensor,
    weights: Tensor | None, indices: Tensor, transposed: tuple[Tensor, Tensor, Tensor], scale: float, tiles: Tiles,
    gradients: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    """Write dq (b, h, n, d), dk and dv (b, h, m, d) into `gradients`; any strides with contiguous last dims.

    transposed: offsets (m + 1), edges (n * s) and order (m) of the lists by key, with a leading h if indices has one.
    d_lse (b, h, n) float32 with the strides of lse, or None where no gradient reaches lse. weights (b, h, n, s), or
    None if forward did not keep them; out, only if that is so. k and v, and dk and dv, share their strides.
    """
    tensors = (d_out, d_lse, q, k, v, out, lse, weights, *gradients)
    if 8 * q.shape[:3].numel() * indices.shape[-1] <= SCRATCH_BYTES:
        _backward_of_group(*tensors, indices, *transposed, scale, tiles)
        return
    for batch, heads in _groups(q, indices):
        group = [None if tensor is None else tensor[batch, heads] for tensor in tensors]
        lists = [tensor[heads] if indices.dim() == 3 else tensor for tensor in (indices, *transposed)]
        _backward_of_group(*group, *lists, scale, tiles)  # pyright: ignore[reportCallIssue]


def _groups(q: Tensor, indices: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of batch and heads that cover all of them, as many heads at once as SCRATCH_BYTES allow."""
    batch, heads, num_queries, _ = q.shape
    group = max(1, SCRATCH_BYTES // (8 * num_queries * indices.shape[-1]))
    for sample in range(batch):
        for first in range(0, heads, group):
            yield slice(sample, sample + 1), slice(first, min(first + group, heads))


def _backward_of_group(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor | None, lse: Tensor,
    weight: Tensor | None, dq: Tensor, dk: Tensor, dv: Tensor,
    indices: Tensor, offsets: Tensor, edges: Tensor, order: Tensor, scale: float, tiles: Tiles,
) -> None:  # fmt: skip
    if takes_passes(q.shape[-1], indices.shape[-1], tiles, keeps=weight is not None):
        weight, d_score = wide.score_gradients(d_out, d_lse, q, k, v, lse, indices, scale, tiles, weight)
        wide.weighted_sums(d_score, k, indices, tiles, tiles.by_query, dq)
    elif weight is not None:
        d_score = _score_gradients(d_out, d_lse, v, lse, weight, indices, scale, tiles)
        wide.weighted_sums(d_score, k, indices, tiles, tiles.by_query, dq)
    else:
        assert out is not None
        weight, d_score = _by_query(d_out, d_lse, q, k, v, out, lse, indices, scale, tiles.by_query, dq)
    by_key.backward(d_out, q, weight, d_score, indices, (offsets, edges, order), tiles, dk, dv)


def _score_gradients(
    d_out: Tensor, d_lse: Tensor | None, v: Tensor, lse: Tensor, weights: Tensor, indices: Tensor, scale: float,
    tiles: Tiles,
) -> Tensor:  # fmt: skip
    """d_score (b, h, n, s), from the weights that forward kept."""
    batch, heads, num_queries, head_dim = d_out.shape
    d_score = torch.empty(weights.shape, dtype=torch.float32, device=weights.device)
    tile = tiles.forward
    _score_gradient_kernel[(ceil_div(num_queries, tile.rows), heads, batch)](
        d_out, lse if d_lse is None else d_lse, v, weights, indices, d_score, scale, num_queries,
        *d_out.stride()[:3], *v.stride()[:3], *weights.stride()[:2], *lse.stride()[:2], head_stride(indices, 2),
        HAS_D_LSE=d_lse is not None, NUM_SLOTS=indices.shape[-1],
        HEAD_DIM=head_dim, BLOCK_D=power_of_two(head_dim), QUERIES=tile.rows,
        SLOTS=power_of_two(indices.shape[-1]), FAR=is_far(v), **tile.options,
    )  # fmt: skip
    return d_score


def _by_query(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, indices: Tensor,
    scale: float, tile: Tile, dq: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill dq, and return weight and d_score (b, h, n, s), both computed from q and k again."""
    batch, heads, num_queries, head_dim = q.shape
    shape = (2, batch, heads, num_queries, indices.shape[-1])
    weight, d_score = torch.empty(shape, dtype=torch.float32, device=q.device).unbind()
    _by_query_kernel[(ceil_div(num_queries, tile.rows), heads, batch)](
        d_out, lse if d_lse is None else d_lse, q, k, v, out, lse, indices, dq, weight, d_score, scale, num_queries,
        *q.stride()[:3], *k.stride()[:3], *out.stride()[:3], *d_out.stride()[:3], *dq.stride()[:3], *lse.stride()[:2],
        head_stride(indices, 2),
        HAS_D_LSE=d_lse is not None, NUM_SLOTS=indices.shape[-1],
        HEAD_DIM=head_dim, BLOCK_D=power_of_two(head_dim),
        QUERIES=tile.rows, SLOTS=tile.slots, FAR=is_far(k), **tile.options,
    )  # fmt: skip
    return weight, d_score


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _score_gradient_kernel(
    d_out_ptr, d_lse_ptr, v_ptr, weight_ptr, indices_ptr, d_score_ptr, scale, num_queries,
    d_out_stride_b, d_out_stride_h, d_out_stride_n, v_stride_b, v_stride_h, v_stride_m,
    weight_stride_b, weight_stride_h, lse_stride_b, lse_stride_h, table_stride_h,
    HAS_D_LSE: tl.constexpr, NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    dim_d = dims_of(0, BLOCK_D)
    slot_s = tl.arange(0, SLOTS)
    edge_sq = (query_q.to(tl.int64) * NUM_SLOTS)[None, :] + slot_s[:, None]
    real_sq = real_q[None, :] & (slot_s < NUM_SLOTS)[:, None]
    key_sq = tl.load(indices_ptr + head * table_stride_h + edge_sq, mask=real_sq, other=-1)
    weight_ptr += batch * weight_stride_b + head * weight_stride_h
    weight_sq = tl.load(weight_ptr + edge_sq, mask=real_sq, other=0.0)
    d_out_ptr += batch * d_out_stride_b + head * d_out_stride_h
    d_out_qd = load_rows(d_out_ptr, query_q, d_out_stride_n, real_q, dim_d, HEAD_DIM, BLOCK_D)
    v_ptr += batch * v_stride_b + head * v_stride_h
    v_sqd = gather_rows(v_ptr, key_sq, v_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
    d_weight_sq = tl.sum(d_out_qd.to(tl.float32)[None, :, :] * widen(v_sqd), 2)
    shift_q = -tl.sum(weight_sq * d_weight_sq, 0)
    if HAS_D_LSE:
        d_lse_ptr += batch * lse_stride_b + head * lse_stride_h
        shift_q += tl.load(d_lse_ptr + query_q, mask=real_q, other=0.0)
    d_score_sq = _d_scores(weight_sq, d_weight_sq, shift_q, key_sq, scale)
    d_score_ptr += (batch * tl.num_programs(1) + head) * num_queries * NUM_SLOTS
    tl.store(d_score_ptr + edge_sq, d_score_sq, mask=real_sq)


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _by_query_kernel(
    d_out_ptr, d_lse_ptr, q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, indices_ptr, dq_ptr, weight_ptr, d_score_ptr,
    scale, num_queries,
    q_stride_b, q_stride_h, q_stride_n, k_stride_b, k_stride_h, k_stride_m, out_stride_b, out_stride_h, out_stride_n,
    d_out_stride_b, d_out_stride_h, d_out_stride_n, dq_stride_b, dq_stride_h, dq_stride_n, lse_stride_b, lse_stride_h,
    table_stride_h,
    HAS_D_LSE: tl.constexpr, NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    k_ptr += batch * k_stride_b + head * k_stride_h
    v_ptr += batch * k_stride_b + head * k_stride_h
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    dim_d = dims_of(0, BLOCK_D)
    slot_s = tl.arange(0, SLOTS)
    edge_sq = (query_q.to(tl.int64) * NUM_SLOTS)[None, :] + slot_s[:, None]
    indices_ptr += head * table_stride_h
    scratch = (batch * tl.num_programs(1) + head) * num_queries * NUM_SLOTS
    weight_ptr += scratch
    d_score_ptr += scratch

    q_ptr += batch * q_stride_b + head * q_stride_h
    q_qd = load_rows(q_ptr, query_q, q_stride_n, real_q, dim_d, HEAD_DIM, BLOCK_D)
    d_out_ptr += batch * d_out_stride_b + head * d_out_stride_h
    d_out_qd = load_rows(d_out_ptr, query_q, d_out_stride_n, real_q, dim_d, HEAD_DIM, BLOCK_D).to(tl.float32)
    per_query = batch * lse_stride_b + head * lse_stride_h
    lse_q = tl.load(lse_ptr + per_query + query_q, mask=real_q, other=0.0) * LOG2_E
    # The sum over all edges is needed before the first of them: it equals d_out . out.
    out_ptr += batch * out_stride_b + head * out_stride_h
    out_qd = load_rows(out_ptr, query_q, out_stride_n, real_q, dim_d, HEAD_DIM, BLOCK_D)
    shift_q = -tl.sum(d_out_qd * out_qd.to(tl.float32), 1)
    if HAS_D_LSE:
        shift_q += tl.load(d_lse_ptr + per_query + query_q, mask=real_q, other=0.0)

    dq_qd = tl.zeros([QUERIES, BLOCK_D], tl.float32)
    for first_slot in range(0, NUM_SLOTS, SLOTS):
        real_sq = real_q[None, :] & (first_slot + slot_s < NUM_SLOTS)[:, None]
        key_sq = tl.load(indices_ptr + first_slot + edge_sq, mask=real_sq, other=-1)
        v_sqd = gather_rows(v_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
        k_sqd = gather_rows(k_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
        d_weight_sq = tl.sum(d_out_qd[None, :, :] * widen(v_sqd), 2)
        weight_sq = _weights(q_qd, k_sqd, key_sq, lse_q, scale)
        d_score_sq = _d_scores(weight_sq, d_weight_sq, shift_q, key_sq, scale)
        tl.store(weight_ptr + first_slot + edge_sq, weight_sq, mask=real_sq)
        tl.store(d_score_ptr + first_slot + edge_sq, d_score_sq, mask=real_sq)
        dq_qd += tl.sum(d_score_sq[:, :, None] * widen(k_sqd), 0)

    dq_ptr += batch * dq_stride_b + head * dq_stride_h
    store_rows(dq_ptr, query_q, dq_stride_n, real_q, dim_d, dq_qd, HEAD_DIM, BLOCK_D)


@triton.jit
def _weights(q_qd, k_sqd, key_sq, lse_q, scale):
    """exp(score - lse); 0 in empty slots."""
    q_qd = q_qd.to(tl.float32) * (scale * LOG2_E)
    weight_sq = tl.exp2(tl.sum(q_qd[None, :, :] * widen(k_sqd), 2) - lse_q[None, :])
    return tl.where(key_sq >= 0, weight_sq, 0.0)


@triton.jit
def _d_scores(weight_sq, d_weight_sq, shift_q, key_sq, scale):
    """scale * gradient of the scores; 0 in empty slots, even if the gradient of an empty row's lse is NaN."""
    return tl.where(key_sq >= 0, weight_sq * (d_weight_sq + shift_q[None, :]) * scale, 0.0)
