"""Scores, softmax and weighted sums as passes of their own, over one gathered matrix each.

Heads wider than one tile, such as one head of 768, are cut into pieces, and each piece is a pass: one of all keys stays
in the L2 cache where whole keys would not. Dot products become partial ones, (p, b, h, n, s) in float32, that a small
kernel adds up; sums of rows need no such step. Lists too long for one tile whose weights are kept for backward go
through the same passes, in one piece.

Shape suffixes: b batch, h heads, n queries of the sequence, m its keys, p pieces, q queries of a program, s slots held
at once, d dims of a piece.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from .launch import Tile, Tiles, ceil_div, head_stride, is_far, num_pieces, piece_width, power_of_two
from .rows import dims_of, gather_rows, load_rows, store_rows, widen

SOFTMAX_ELEMENTS = 1024


def forward(
    q: Tensor, k: Tensor, v: Tensor, indices: Tensor, scale: float, tiles: Tiles, out: Tensor, lse: Tensor,
    weights: Tensor | None,
) -> None:  # fmt: skip
    """Fill out (b, h, n, d), lse (b, h, n) and, if given, weights (b, h, n, s)."""
    partial = _partial_scores(q, k, indices, tiles, room=weights)
    weight = partial[0] if weights is None else weights
    grid, constants = _softmax_launch(partial)
    _softmax_kernel[grid](
        partial, indices, weight, lse, scale, q.shape[2], partial.stride(0), *lse.stride()[:2],
        head_stride(indices, 2), **constants,
    )  # fmt: skip
    weighted_sums(weight, v, indices, tiles, tiles.forward, out)


def score_gradients(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, lse: Tensor, indices: Tensor, scale: float,
    tiles: Tiles, weights: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """weight and d_score, (b, h, n, s) each; the weights are computed again unless forward kept them."""
    d_weight = _partial_scores(d_out, v, indices, tiles)
    score = d_weight if weights is not None else _partial_scores(q, k, indices, tiles)
    weight = torch.empty_like(d_weight[0]) if weights is None else weights
    d_score = d_weight[0] if len(d_weight) == 1 else torch.empty_like(d_weight[0])
    grid, constants = _softmax_launch(d_weight)
    _softmax_backward_kernel[grid](
        score, d_weight, indices, lse, lse if d_lse is None else d_lse, weight, d_score,
        scale, q.shape[2], d_weight.stride(0), *weight.stride()[:2], *lse.stride()[:2], head_stride(indices, 2),
        HAS_D_LSE=d_lse is not None, HAS_WEIGHTS=weights is not None, **constants,
    )  # fmt: skip
    return weight, d_score


def _partial_scores(q: Tensor, k: Tensor, indices: Tensor, tiles: Tiles, room: Tensor | None = None) -> Tensor:
    """(p, b, h, n, s): the part of q . k that each piece of head_dim adds; 0 in empty slots.

    room (b, h, n, s), contiguous float32, is where it goes if there is one piece only.
    """
    batch, heads, num_queries, head_dim = q.shape
    pieces, tile = num_pieces(head_dim, tiles), tiles.forward
    shape = (pieces, batch, heads, num_queries, indices.shape[-1])
    if room is not None and pieces == 1:
        partial = room.unsqueeze(0)
    else:
        partial = torch.empty(shape, dtype=torch.float32, device=q.device)
    _partial_scores_kernel[(ceil_div(num_queries, tile.rows), heads * pieces, batch)](
        q, k, indices, partial, num_queries, *q.stride()[:3], *k.stride()[:3], head_stride(indices, 2),
        **_gather_constants(k, indices, tiles, tile),
    )  # fmt: skip
    return partial


def weighted_sums(weight: Tensor, v: Tensor, indices: Tensor, tiles: Tiles, tile: Tile, out: Tensor) -> None:
    """out (b, h, n, d): the rows of v that each query lists, weighted with weight (b, h, n, s), contiguous."""
    batch, heads, num_queries, head_dim = out.shape
    _weighted_sum_kernel[(ceil_div(num_queries, tile.rows), heads * num_pieces(head_dim, tiles), batch)](
        weight, v, indices, out, num_queries, *v.stride()[:3], *out.stride()[:3], head_stride(indices, 2),
        **_gather_constants(v, indices, tiles, tile),
    )  # fmt: skip


def _gather_constants(k: Tensor, indices: Tensor, tiles: Tiles, tile: Tile) -> dict[str, Any]:
    return {
        "NUM_SLOTS": indices.shape[-1], "HEAD_DIM": k.shape[-1], "BLOCK_D": piece_width(k.shape[-1], tiles),
        "QUERIES": tile.rows, "SLOTS": tile.slots, "FAR": is_far(k), **tile.options,
    }  # fmt: skip


def _softmax_launch(partial: Tensor) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Grid and constants for the kernels that take whole rows of partial (p, b, h, n, s)."""
    pieces, batch, heads, num_queries, num_slots = partial.shape
    slots = power_of_two(num_slots)
    queries = max(1, SOFTMAX_ELEMENTS // slots)
    constants = {"PIECES": pieces, "NUM_SLOTS": num_slots, "QUERIES": queries, "SLOTS": slots}
    return (ceil_div(num_queries, queries), heads, batch), constants


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _partial_scores_kernel(
    q_ptr, k_ptr, indices_ptr, partial_ptr, num_queries,
    q_stride_b, q_stride_h, q_stride_n, k_stride_b, k_stride_h, k_stride_m, table_stride_h,
    NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    pieces: tl.constexpr = (HEAD_DIM + BLOCK_D - 1) // BLOCK_D
    piece, heads = tl.program_id(1) % pieces, tl.num_programs(1) // pieces
    head, batch = (tl.program_id(1) // pieces).to(tl.int64), tl.program_id(2).to(tl.int64)
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    dim_d = dims_of(piece, BLOCK_D)
    slot_s = tl.arange(0, SLOTS)
    edge_sq = (query_q.to(tl.int64) * NUM_SLOTS)[None, :] + slot_s[:, None]
    indices_ptr += head * table_stride_h
    k_ptr += batch * k_stride_b + head * k_stride_h
    partial_ptr += ((piece * tl.num_programs(2) + batch) * heads + head) * num_queries * NUM_SLOTS
    q_ptr += batch * q_stride_b + head * q_stride_h
    q_qd = load_rows(q_ptr, query_q, q_stride_n, real_q, dim_d, HEAD_DIM, BLOCK_D).to(tl.float32)
    for first_slot in range(0, NUM_SLOTS, SLOTS):
        real_sq = real_q[None, :] & (first_slot + slot_s < NUM_SLOTS)[:, None]
        key_sq = tl.load(indices_ptr + first_slot + edge_sq, mask=real_sq, other=-1)
        k_sqd = gather_rows(k_ptr, key_sq, k_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
        score_sq = tl.sum(q_qd[None, :, :] * widen(k_sqd), 2)
        tl.store(partial_ptr + first_slot + edge_sq, score_sq, mask=real_sq)


@Kernel
@triton.jit(do_not_specialize=["num_queries"])
def _weighted_sum_kernel(
    weight_ptr, v_ptr, indices_ptr, out_ptr, num_queries,
    v_stride_b, v_stride_h, v_stride_m, out_stride_b, out_stride_h, out_stride_n, table_stride_h,
    NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    pieces: tl.constexpr = (HEAD_DIM + BLOCK_D - 1) // BLOCK_D
    piece, heads = tl.program_id(1) % pieces, tl.num_programs(1) // pieces
    head, batch = (tl.program_id(1) // pieces).to(tl.int64), tl.program_id(2).to(tl.int64)
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    dim_d = dims_of(piece, BLOCK_D)
    slot_s = tl.arange(0, SLOTS)
    edge_sq = (query_q.to(tl.int64) * NUM_SLOTS)[None, :] + slot_s[:, None]
    indices_ptr += head * table_stride_h
    v_ptr += batch * v_stride_b + head * v_stride_h
    weight_ptr += (batch * heads + head) * num_queries * NUM_SLOTS
    out_qd = tl.zeros([QUERIES, BLOCK_D], tl.float32)
    for first_slot in range(0, NUM_SLOTS, SLOTS):
        real_sq = real_q[None, :] & (first_slot + slot_s < NUM_SLOTS)[:, None]
        key_sq = tl.load(indices_ptr + first_slot + edge_sq, mask=real_sq, other=-1)
        v_sqd = gather_rows(v_ptr, key_sq, v_stride_m, dim_d, HEAD_DIM, BLOCK_D, QUERIES, FAR)
        weight_sq = tl.load(weight_ptr + first_slot + edge_sq, mask=real_sq, other=0.0)
        out_qd += tl.sum(weight_sq[:, :, None] * widen(v_sqd), 0)
    out_ptr += batch * out_stride_b + head * out_stride_h
    store_rows(out_ptr, query_q, out_stride_n, real_q, dim_d, out_qd, HEAD_DIM, BLOCK_D)


@Kernel
@triton.jit(do_not_specialize=["num_queries", "piece_stride"])
def _softmax_kernel(
    partial_ptr, indices_ptr, weight_ptr, lse_ptr, scale, num_queries, piece_stride, lse_stride_b, lse_stride_h,
    table_stride_h,
    PIECES: tl.constexpr, NUM_SLOTS: tl.constexpr, QUERIES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """weight may be the first piece of partial: each program reads its own numbers before it writes them."""
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    query_q, edge_qs, real_qs = _edges(num_queries, NUM_SLOTS, QUERIES, SLOTS)
    key_qs = tl.load(indices_ptr + head * table_stride_h + edge_qs, mask=real_qs, other=-1)
    own_qs = (batch * tl.num_programs(1) + head) * num_queries * NUM_SLOTS + edge_qs
    score_qs = _sum_pieces(partial_ptr + own_qs, real_qs, piece_stride, PIECES, QUERIES, SLOTS) * scale
    score_qs = tl.where(key_qs >= 0, score_qs, float("-inf"))
    top_q = tl.max(score_qs, 1)
    top_q = tl.where(top_q == float("-inf"), 0.0, top_q)
    weight_qs = tl.exp(score_qs - top_q[:, None])
    total_q = tl.sum(weight_qs, 1)
    empty_q = total_q == 0
    total_q = tl.where(empty_q, 1.0, total_q)
    tl.store(weight_ptr + own_qs, weight_qs / total_q[:, None], mask=real_qs)
    lse_q = tl.where(empty_q, float("-inf"), top_q + tl.log(total_q))
    tl.store(lse_ptr + batch * lse_stride_b + head * lse_stride_h + query_q, lse_q, mask=query_q < num_queries)


@Kernel
@triton.jit(do_not_specialize=["num_queries", "piece_stride"])
def _softmax_backward_kernel(
    score_ptr, d_weight_ptr, indices_ptr, lse_ptr, d_lse_ptr, weight_ptr, d_score_ptr,
    scale, num_queries, piece_stride, weight_stride_b, weight_stride_h, lse_stride_b, lse_stride_h, table_stride_h,
    HAS_D_LSE: tl.constexpr, HAS_WEIGHTS: tl.constexpr, PIECES: tl.constexpr, NUM_SLOTS: tl.constexpr,
    QUERIES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    query_q, edge_qs, real_qs = _edges(num_queries, NUM_SLOTS, QUERIES, SLOTS)
    key_qs = tl.load(indices_ptr + head * table_stride_h + edge_qs, mask=real_qs, other=-1)
    own_qs = (batch * tl.num_programs(1) + head) * num_queries * NUM_SLOTS + edge_qs
    d_weight_qs = _sum_pieces(d_weight_ptr + own_qs, real_qs, piece_stride, PIECES, QUERIES, SLOTS)
    per_query = batch * lse_stride_b + head * lse_stride_h
    weight_ptr += batch * weight_stride_b + head * weight_stride_h
    if HAS_WEIGHTS:
        weight_qs = tl.load(weight_ptr + edge_qs, mask=real_qs, other=0.0)
    else:
        score_qs = _sum_pieces(score_ptr + own_qs, real_qs, piece_stride, PIECES, QUERIES, SLOTS) * scale
        lse_q = tl.load(lse_ptr + per_query + query_q, mask=query_q < num_queries, other=0.0)
        weight_qs = tl.where(key_qs >= 0, tl.exp(score_qs - lse_q[:, None]), 0.0)
        tl.store(weight_ptr + edge_qs, weight_qs, mask=real_qs)
    shift_q = -tl.sum(weight_qs * d_weight_qs, 1)
    if HAS_D_LSE:
        shift_q += tl.load(d_lse_ptr + per_query + query_q, mask=query_q < num_queries, other=0.0)
    d_score_qs = tl.where(key_qs >= 0, weight_qs * (d_weight_qs + shift_q[:, None]) * scale, 0.0)
    tl.store(d_score_ptr + own_qs, d_score_qs, mask=real_qs)


@triton.jit
def _edges(num_queries, NUM_SLOTS: tl.constexpr, QUERIES: tl.constexpr, SLOTS: tl.constexpr):
    """The queries of a program, the ids of their edges, and which of these exist."""
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    slot_s = tl.arange(0, SLOTS)
    real_qs = (query_q < num_queries)[:, None] & (slot_s < NUM_SLOTS)[None, :]
    return query_q, query_q.to(tl.int64)[:, None] * NUM_SLOTS + slot_s[None, :], real_qs


@triton.jit
def _sum_pieces(partial_qs, real_qs, piece_stride, PIECES: tl.constexpr, QUERIES: tl.constexpr, SLOTS: tl.constexpr):
    sum_qs = tl.zeros([QUERIES, SLOTS], tl.float32)
    for _ in range(PIECES):
        sum_qs += tl.load(partial_qs, mask=real_qs, other=0.0)
        partial_qs += piece_stride
    return sum_qs
