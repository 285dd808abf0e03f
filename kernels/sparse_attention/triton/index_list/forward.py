"""Forward pass: one program takes a few queries of one head, gathers their keys and values, and writes out and lse.

Shape suffixes: b batch, h heads, n queries of the sequence, m its keys, q queries of a program, s slots held at once,
d head_dim. Lists longer than `SLOTS` go through an online softmax, in base 2.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from . import wide
from .launch import Tile, Tiles, ceil_div, head_stride, is_far, power_of_two, takes_passes
from .rows import dims_of, gather_rows, load_rows, store_rows, widen

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


def forward(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, scale: float, tiles: Tiles, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d), stored token by token, and lse (b, h, n) in float32, natural log.

    q (b, h, n, d); k, v (b, h, m, d) with the same strides; last dims contiguous. indices (n, s) or (h, n, s).
    weights (b, h, n, s), contiguous float32, is filled if given; only for lists that `keeps_weights` takes.
    """
    batch, heads, num_queries, head_dim = q.shape
    out = torch.empty((batch, num_queries, heads, head_dim), dtype=q.dtype, device=q.device).transpose(1, 2)
    lse = torch.empty((batch, heads, num_queries), dtype=torch.float32, device=q.device)
    if takes_passes(head_dim, indices.shape[-1], tiles, keeps=weights is not None):
        wide.forward(q, k, v, indices, scale, tiles, out, lse, weights)
    else:
        _launch(q, k, v, indices, scale, tiles.forward, out, lse, weights)
    return out, lse


def _launch(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, scale: float, tile: Tile, out: Tensor, lse: Tensor,
    weights: Tensor | None,
) -> None:  # fmt: skip
    batch, heads, num_queries, head_dim = q.shape
    slots = tile.slots if weights is None else max(tile.slots, power_of_two(indices.shape[-1]))
    _forward_kernel[(ceil_div(num_queries, tile.rows), heads, batch)](
        q, k, v, indices, out, lse, lse if weights is None else weights, scale, num_queries,
        *q.stride()[:3], *k.stride()[:3], *out.stride()[:3], *lse.stride()[:2], head_stride(indices, 2),
        KEEP_WEIGHTS=weights is not None, NUM_SLOTS=indices.shape[-1],
        HEAD_DIM=head_dim, BLOCK_D=power_of_two(head_dim),
        QUERIES=tile.rows, SLOTS=slots, FAR=is_far(k), **tile.options,
    )  # fmt: skip


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, indices_ptr, out_ptr, lse_ptr, weight_ptr, scale, num_queries,
    q_stride_b, q_stride_h, q_stride_n, k_stride_b, k_stride_h, k_stride_m, out_stride_b, out_stride_h, out_stride_n,
    lse_stride_b, lse_stride_h, table_stride_h,
    KEEP_WEIGHTS: tl.constexpr, NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    k_ptr += batch * k_stride_b + head * k_stride_h
    v_ptr += batch * k_stride_b + head * k_stride_h
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    dim_d = dims_of(0, BLOCK_D)
    slot_s = tl.arange(0, SLOTS)
    list_sq = indices_ptr + head * table_stride_h + (query_q.to(tl.int64) * NUM_SLOTS)[None, :] + slot_s[:, None]

    q_ptr += batch * q_stride_b + head * q_stride_h
    q_qd = load_rows(q_ptr, query_q, q_stride_n, real_q, dim_d, HEAD_DIM, BLOCK_D)
    if NUM_SLOTS <= SLOTS:
        key_sq = tl.load(list_sq, mask=real_q[None, :] & (slot_s < NUM_SLOTS)[:, None], other=-1)
        k_sqd = gather_rows(k_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
        v_sqd = gather_rows(v_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
        score_sq = _scores(q_qd, k_sqd, key_sq, scale)
        top_q = _finite(tl.max(score_sq, 0))
        weight_sq = tl.exp2(score_sq - top_q[None, :])
        total_q = tl.sum(weight_sq, 0)
        weight_sq = weight_sq / tl.where(total_q == 0, 1.0, total_q)[None, :]
        out_qd = tl.sum(weight_sq[:, :, None] * widen(v_sqd), 0)
        if KEEP_WEIGHTS:
            edge_sq = (query_q.to(tl.int64) * NUM_SLOTS)[None, :] + slot_s[:, None]
            weight_ptr += (batch * tl.num_programs(1) + head) * num_queries * NUM_SLOTS
            tl.store(weight_ptr + edge_sq, weight_sq, mask=real_q[None, :] & (slot_s < NUM_SLOTS)[:, None])
    else:
        top_q = tl.full([QUERIES], float("-inf"), tl.float32)
        total_q = tl.zeros([QUERIES], tl.float32)
        out_qd = tl.zeros([QUERIES, BLOCK_D], tl.float32)
        for first_slot in range(0, NUM_SLOTS, SLOTS):
            real_s = first_slot + slot_s < NUM_SLOTS
            key_sq = tl.load(list_sq + first_slot, mask=real_q[None, :] & real_s[:, None], other=-1)
            k_sqd = gather_rows(k_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
            v_sqd = gather_rows(v_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
            score_sq = _scores(q_qd, k_sqd, key_sq, scale)
            new_top_q = tl.maximum(top_q, tl.max(score_sq, 0))
            shrink_q = tl.exp2(top_q - _finite(new_top_q))
            weight_sq = tl.exp2(score_sq - _finite(new_top_q)[None, :])
            total_q = total_q * shrink_q + tl.sum(weight_sq, 0)
            out_qd = out_qd * shrink_q[:, None] + tl.sum(weight_sq[:, :, None] * widen(v_sqd), 0)
            top_q = new_top_q
        top_q = _finite(top_q)
        out_qd = out_qd / tl.where(total_q == 0, 1.0, total_q)[:, None]

    lse_q = (top_q + tl.log2(tl.where(total_q == 0, 1.0, total_q))) * LN_2
    lse_q = tl.where(total_q == 0, float("-inf"), lse_q)
    out_ptr += batch * out_stride_b + head * out_stride_h
    store_rows(out_ptr, query_q, out_stride_n, real_q, dim_d, out_qd, HEAD_DIM, BLOCK_D)
    tl.store(lse_ptr + batch * lse_stride_b + head * lse_stride_h + query_q, lse_q, mask=real_q)


@triton.jit
def _scores(q_qd, k_sqd, key_sq, scale):
    q_qd = q_qd.to(tl.float32) * (scale * LOG2_E)
    score_sq = tl.sum(q_qd[None, :, :] * widen(k_sqd), 2)
    return tl.where(key_sq >= 0, score_sq, float("-inf"))


@triton.jit
def _finite(top_q):
    """0 for queries that have met no key yet, so that -inf is never subtracted from -inf."""
    return tl.where(top_q == float("-inf"), 0.0, top_q)
