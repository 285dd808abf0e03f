"""Backward pass by key: dk and dv as weighted sums over the transposed lists, each summed in one fixed order.

A program owns a few keys of one head and adds up either dv or dk: one gathered matrix at a time stays in the L2 cache
where two do not. Keys come in order of degree, so that those of a program have equally long lists.

Lists longer than `long` edges, those of hubs, are left to two further kernels. The sorted edges are cut at fixed places
into segments of `long` edges; a segment that meets a long list writes its partial sum, and at most two long lists meet
a segment: one that ends in it and one that starts in it. Then the partial sums of each hub are added up in order. The
host need not know whether there are hubs.

Shape suffixes: b batch, h heads, n queries, m keys of the sequence, k keys of a program, c edges of each key held at
once, r edges of one key, d head_dim. `matrix` is 0 for dv and 1 for dk; `piece` a piece of head_dim.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from .launch import Tiles, ceil_div, head_stride, is_far, num_pieces, piece_width, power_of_two
from .rows import dims_of, gather_rows, load_rows, store_rows, widen

SHORTEST_LONG_LIST = 256
HUB_PROGRAMS = 64
SEGMENT_PROGRAMS = 256
"""More are faster where there are hubs, but also have to be started where there are none."""
HUB_ROWS, SEGMENT_ROWS = 16, 32


def backward(
    d_out: Tensor, q: Tensor, weight: Tensor, d_score: Tensor, indices: Tensor, transposed: tuple[Tensor, ...],
    tiles: Tiles, dk: Tensor, dv: Tensor,
) -> None:  # fmt: skip
    """Fill dk and dv (b, h, m, d); weight and d_score: (b, h, n, slots), the last two dims contiguous."""
    offsets, edges, order = transposed
    batch, heads, num_keys, head_dim = dk.shape
    num_edges, block_d = edges.shape[-1], piece_width(head_dim, tiles)
    programs = (heads * 2 * num_pieces(head_dim, tiles), batch)
    long = long_list(num_edges, num_keys)
    rows = (*d_out.stride()[:3], *q.stride()[:3], *weight.stride()[:2], *d_score.stride()[:2])
    lists = (head_stride(offsets, 1), head_stride(edges, 1), head_stride(order, 1))
    constants = {"NUM_SLOTS": indices.shape[-1], "HEAD_DIM": head_dim, "BLOCK_D": block_d}
    tile = tiles.by_key
    _by_key_kernel[(ceil_div(num_keys, tile.rows), *programs)](
        d_out, q, weight, d_score, offsets, edges, order, dk, dv, num_keys, long, *rows, *dk.stride()[:3], *lists,
        **constants, KEYS=tile.rows, CHUNK=tile.slots, FAR=is_far(d_out) or is_far(q),
        **tile.options,
    )  # fmt: skip
    if num_edges <= long:
        return
    segments = ceil_div(num_edges, long)
    partial = torch.empty((batch, programs[0], 2 * segments, block_d), dtype=torch.float32, device=q.device)
    _segment_kernel[(min(segments, SEGMENT_PROGRAMS), *programs)](
        d_out, q, weight, d_score, indices, offsets, edges, order, partial, num_keys, num_edges, *rows,
        head_stride(indices, 2), *lists, **constants, LONG=long, ROWS=SEGMENT_ROWS, num_warps=2,
    )  # fmt: skip
    _hub_kernel[(min(num_keys, num_edges // long, HUB_PROGRAMS), *programs)](
        partial, offsets, order, dk, dv, num_keys, num_edges, *dk.stride()[:3], lists[0], lists[2],
        HEAD_DIM=head_dim, BLOCK_D=block_d, LONG=long, ROWS=HUB_ROWS, num_warps=1,
    )  # fmt: skip


def long_list(num_edges: int, num_keys: int) -> int:
    """Edges from which on a list counts as long: four times the mean at least, so that segments stay few."""
    return max(SHORTEST_LONG_LIST, power_of_two(4 * ceil_div(num_edges, num_keys)))


@triton.jit
def _place(PIECES: tl.constexpr):
    """(batch, head, matrix, piece) of a program; all keys of one matrix of one head come in a row."""
    program = tl.program_id(1)
    return (
        tl.program_id(2).to(tl.int64),
        (program // (2 * PIECES)).to(tl.int64),
        program // PIECES % 2,
        program % PIECES,
    )


@Kernel
@triton.jit(do_not_specialize=["num_keys", "long"])
def _by_key_kernel(
    d_out_ptr, q_ptr, weight_ptr, d_score_ptr, offsets_ptr, edges_ptr, order_ptr, dk_ptr, dv_ptr, num_keys, long,
    d_out_stride_b, d_out_stride_h, d_out_stride_n, q_stride_b, q_stride_h, q_stride_n,
    weight_stride_b, weight_stride_h, d_score_stride_b, d_score_stride_h,
    dk_stride_b, dk_stride_h, dk_stride_m, offsets_stride_h, edges_stride_h, order_stride_h,
    NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, KEYS: tl.constexpr, CHUNK: tl.constexpr,
    FAR: tl.constexpr,
):  # fmt: skip
    pieces: tl.constexpr = (HEAD_DIM + BLOCK_D - 1) // BLOCK_D
    batch, head, matrix, piece = _place(pieces)
    row_stride = tl.where(matrix == 0, d_out_stride_n, q_stride_n)
    if matrix == 0:
        row_ptr = d_out_ptr + batch * d_out_stride_b + head * d_out_stride_h
        factor_ptr = weight_ptr + batch * weight_stride_b + head * weight_stride_h
        gradient_ptr = dv_ptr
    else:
        row_ptr = q_ptr + batch * q_stride_b + head * q_stride_h
        factor_ptr = d_score_ptr + batch * d_score_stride_b + head * d_score_stride_h
        gradient_ptr = dk_ptr
    offsets_ptr += head * offsets_stride_h
    edges_ptr += head * edges_stride_h
    dim_d = dims_of(piece, BLOCK_D)

    place_k = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    real_k = place_k < num_keys
    key_k = tl.load(order_ptr + head * order_stride_h + place_k, mask=real_k, other=0)
    start_k = tl.load(offsets_ptr + key_k, mask=real_k, other=0)
    end_k = tl.load(offsets_ptr + key_k + 1, mask=real_k, other=0)
    short_k = end_k - start_k <= long
    end_k = tl.where(short_k, end_k, start_k)
    position_ck = start_k[None, :] + tl.arange(0, CHUNK)[:, None]
    sum_kd = tl.zeros([KEYS, BLOCK_D], tl.float32)
    for _ in range(0, tl.max(end_k - start_k), CHUNK):
        real_ck = position_ck < end_k[None, :]
        edge_ck = tl.load(edges_ptr + position_ck, mask=real_ck, other=0)
        query_ck = tl.where(real_ck, edge_ck // NUM_SLOTS, -1).to(tl.int32)
        row_ckd = gather_rows(row_ptr, query_ck, row_stride, dim_d, HEAD_DIM, BLOCK_D, KEYS, FAR)
        factor_ck = tl.load(factor_ptr + edge_ck, mask=real_ck, other=0.0)
        sum_kd += tl.sum(factor_ck[:, :, None] * widen(row_ckd), 0)
        position_ck += CHUNK
    gradient_ptr += batch * dk_stride_b + head * dk_stride_h
    store_rows(gradient_ptr, key_k, dk_stride_m, real_k & short_k, dim_d, sum_kd, HEAD_DIM, BLOCK_D)


@Kernel
@triton.jit(do_not_specialize=["num_keys", "num_edges"])
def _segment_kernel(
    d_out_ptr, q_ptr, weight_ptr, d_score_ptr, indices_ptr, offsets_ptr, edges_ptr, order_ptr, partial_ptr,
    num_keys, num_edges,
    d_out_stride_b, d_out_stride_h, d_out_stride_n, q_stride_b, q_stride_h, q_stride_n,
    weight_stride_b, weight_stride_h, d_score_stride_b, d_score_stride_h,
    table_stride_h, offsets_stride_h, edges_stride_h, order_stride_h,
    NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, LONG: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """partial (b, programs, 2 * segments, d): sums over the long list that a segment continues, and that it starts."""
    pieces: tl.constexpr = (HEAD_DIM + BLOCK_D - 1) // BLOCK_D
    batch, head, matrix, piece = _place(pieces)
    offsets_ptr += head * offsets_stride_h
    if _degree(offsets_ptr, tl.load(order_ptr + head * order_stride_h + num_keys - 1)) <= LONG:
        return
    row_stride = tl.where(matrix == 0, d_out_stride_n, q_stride_n)
    if matrix == 0:
        row_ptr = d_out_ptr + batch * d_out_stride_b + head * d_out_stride_h
        factor_ptr = weight_ptr + batch * weight_stride_b + head * weight_stride_h
    else:
        row_ptr = q_ptr + batch * q_stride_b + head * q_stride_h
        factor_ptr = d_score_ptr + batch * d_score_stride_b + head * d_score_stride_h
    edges_ptr += head * edges_stride_h
    indices_ptr += head * table_stride_h
    partial_ptr += _partial_offset(batch, num_edges, LONG, BLOCK_D)
    dim_d = dims_of(piece, BLOCK_D)
    filled = tl.load(offsets_ptr + num_keys)

    for segment in range(tl.program_id(0), tl.cdiv(filled, LONG), tl.num_programs(0)):
        start = segment * LONG
        end = start + tl.minimum(filled - start, LONG)
        first_key = tl.load(indices_ptr + tl.load(edges_ptr + start))
        last_key = tl.load(indices_ptr + tl.load(edges_ptr + end - 1))
        for side in tl.static_range(2):
            key = first_key if side == 0 else last_key
            list_start = tl.load(offsets_ptr + key)
            list_end = tl.load(offsets_ptr + key + 1)
            if (list_end - list_start > LONG) & ((list_start < start) == (side == 0)):
                sum_d = _sum_of_edges(
                    row_ptr, row_stride, factor_ptr, edges_ptr, tl.maximum(list_start, start),
                    tl.minimum(list_end, end), dim_d, NUM_SLOTS, HEAD_DIM, BLOCK_D, ROWS,
                )  # fmt: skip
                tl.store(partial_ptr + (2 * segment + side) * BLOCK_D + tl.arange(0, BLOCK_D), sum_d)


@triton.jit
def _sum_of_edges(
    row_ptr, row_stride, factor_ptr, edges_ptr, start, end, dim_d,
    NUM_SLOTS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    sum_rd = tl.zeros([ROWS, BLOCK_D], tl.float32)
    for first in range(start, end, ROWS):
        position_r = first + tl.arange(0, ROWS)
        edge_r = tl.load(edges_ptr + position_r, mask=position_r < end, other=0)
        row_rd = load_rows(row_ptr, edge_r // NUM_SLOTS, row_stride, position_r < end, dim_d, HEAD_DIM, BLOCK_D)
        factor_r = tl.load(factor_ptr + edge_r, mask=position_r < end, other=0.0)
        sum_rd += factor_r[:, None] * row_rd.to(tl.float32)
    return tl.sum(sum_rd, 0)


@triton.jit
def _degree(offsets_ptr, key):
    return tl.load(offsets_ptr + key + 1) - tl.load(offsets_ptr + key)


@triton.jit
def _partial_offset(batch, num_edges, LONG: tl.constexpr, BLOCK_D: tl.constexpr):
    program = batch * tl.num_programs(1) + tl.program_id(1)
    return program * ((num_edges + LONG - 1) // LONG) * 2 * BLOCK_D


@Kernel
@triton.jit(do_not_specialize=["num_keys", "num_edges"])
def _hub_kernel(
    partial_ptr, offsets_ptr, order_ptr, dk_ptr, dv_ptr, num_keys, num_edges,
    dk_stride_b, dk_stride_h, dk_stride_m, offsets_stride_h, order_stride_h,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, LONG: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Add up the partial sums of the keys with the longest lists, segment by segment."""
    batch, head, matrix, piece = _place((HEAD_DIM + BLOCK_D - 1) // BLOCK_D)
    gradient_ptr = dv_ptr if matrix == 0 else dk_ptr
    gradient_ptr += batch * dk_stride_b + head * dk_stride_h
    offsets_ptr += head * offsets_stride_h
    order_ptr += head * order_stride_h
    partial_ptr += _partial_offset(batch, num_edges, LONG, BLOCK_D)
    dim_d = dims_of(piece, BLOCK_D)

    hub = tl.program_id(0)
    key = tl.load(order_ptr + num_keys - 1 - hub)
    while (hub < num_keys) & (_degree(offsets_ptr, key) > LONG):
        start = tl.load(offsets_ptr + key)
        last = (tl.load(offsets_ptr + key + 1) - 1) // LONG
        sum_rd = tl.zeros([ROWS, BLOCK_D], tl.float32)
        for segment in range(start // LONG, last + 1, ROWS):
            segment_r = segment + tl.arange(0, ROWS)
            # A list that starts at a segment's first edge has started there, not before.
            side_r = (segment_r * LONG <= start).to(tl.int32)
            entry_rd = ((2 * segment_r + side_r) * BLOCK_D)[:, None] + tl.arange(0, BLOCK_D)[None, :]
            sum_rd += tl.load(partial_ptr + entry_rd, mask=(segment_r <= last)[:, None], other=0.0)
        sum_1d = tl.sum(sum_rd, 0)[None, :]
        real_1 = tl.full([1], 1, tl.int1)
        store_rows(gradient_ptr, key + tl.zeros([1], tl.int32), dk_stride_m, real_1, dim_d, sum_1d, HEAD_DIM, BLOCK_D)
        hub += tl.num_programs(0)
        key = tl.load(order_ptr + tl.maximum(num_keys - 1 - hub, 0))
