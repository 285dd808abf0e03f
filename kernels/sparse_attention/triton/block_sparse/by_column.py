"""Gradients of keys and values: a program takes keys of one block and goes through the blocks of queries that see them.

Shape suffixes: b batch, h heads, n queries of the sequence, m its keys, k keys of a program, q queries of a tile, d
head_dim.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from .descriptors import tiles_of
from .launch import Tile, padded
from .lists import Lists
from .merge import merge_sums
from .tiles import (
    WHOLE,
    add_product,
    counts_of,
    first_of,
    load_of_tile,
    load_tile,
    own_rows,
    store_tile,
)

LOG2_E = tl.constexpr(1.4426950408889634)


def by_column(
    d_out: Tensor, q: Tensor, k: Tensor, v: Tensor, per_query: Tensor, lists: Lists, scale: float, tile: Tile,
    dk: Tensor, dv: Tensor,
) -> None:  # fmt: skip
    """Fill dk and dv (b, h, m, d), which share strides; lists by column, per_query (b, h, n, 2) as `by_row` left it."""
    batch, heads, num_queries, head_dim = q.shape
    num_keys = k.shape[2]
    groups, slots = lists.groups(heads), lists.num_segments
    partial = per_query.new_empty((batch, groups, slots, lists.block_size, 2, head_dim)) if slots else per_query
    _by_column_kernel[(lists.num_items * (lists.block_size // tile.own), groups, batch)](
        tiles_of(d_out, tile.walked), tiles_of(q, tile.walked), tiles_of(k, tile.own), tiles_of(v, tile.own),
        per_query, dk, dv, lists.mask_words, lists.blocks, lists.masks, lists.items, partial,
        scale, num_queries, num_keys, lists.num_rows(num_keys), slots, *dk.stride()[:3], *per_query.stride()[:2],
        HEAD_DIM=head_dim, BLOCK_D=padded(head_dim), BLOCK=lists.block_size, KEYS=tile.own, QUERIES=tile.walked,
        PER_HEAD=lists.per_head, RAGGED=num_queries % lists.block_size != 0, **tile.options,
    )  # fmt: skip
    if slots:
        merge_sums(partial, lists, (dk, dv))


@Kernel
@triton.jit(do_not_specialize=["num_queries", "num_keys", "num_rows", "num_slots"])
def _by_column_kernel(
    d_out, q, k, v, per_query_ptr, dk_ptr, dv_ptr, words_ptr, blocks_ptr, masks_ptr, items_ptr, partial_ptr,
    scale, num_queries, num_keys, num_rows, num_slots,
    dk_stride_b, dk_stride_h, dk_stride_m, per_query_stride_b, per_query_stride_h,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, KEYS: tl.constexpr, QUERIES: tl.constexpr,
    PER_HEAD: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0) // (BLOCK // KEYS)
    row, start = tl.load(items_ptr + 4 * item), tl.load(items_ptr + 4 * item + 1)
    end, block = tl.load(items_ptr + 4 * item + 2), tl.load(items_ptr + 4 * item + 3)
    head, base, first = own_rows(row, num_rows, PER_HEAD, BLOCK, KEYS)
    place_k = first + tl.arange(0, KEYS)
    batch = tl.program_id(2).to(tl.int64)
    per_query_ptr += batch * per_query_stride_b + head.to(tl.int64) * per_query_stride_h

    k_kd = load_tile(k, head, base, KEYS, BLOCK_D)
    v_kd = load_tile(v, head, base, KEYS, BLOCK_D)
    dk_kd = tl.zeros([KEYS, BLOCK_D], tl.float32)
    dv_kd = tl.zeros([KEYS, BLOCK_D], tl.float32)
    factor = scale * LOG2_E
    row_q = tl.arange(0, QUERIES)
    mask = load_of_tile(masks_ptr, 0, start, end, BLOCK, QUERIES)
    for tile in range((end - start) * (BLOCK // QUERIES)):
        tile_base = block * BLOCK + first_of(tile, BLOCK, QUERIES)
        real_q = tile_base + row_q < num_queries
        q_qd = load_tile(q, head, tile_base, QUERIES, BLOCK_D)
        d_out_qd = load_tile(d_out, head, tile_base, QUERIES, BLOCK_D)
        lse_q, delta_q = _load_pairs(per_query_ptr, tile_base + row_q, real_q, RAGGED)
        score_kq = add_product(k_kd, tl.trans(q_qd), None)
        weight_kq = tl.exp2(score_kq * factor - lse_q[None, :])
        if mask != WHOLE:
            weight_kq = tl.where(counts_of(words_ptr, mask, place_k, tile, BLOCK, QUERIES), weight_kq, 0.0)
        # What the next tile needs to find its rows is under way before it is wanted.
        block = load_of_tile(blocks_ptr, tile + 1, start, end, BLOCK, QUERIES)
        mask = load_of_tile(masks_ptr, tile + 1, start, end, BLOCK, QUERIES)
        d_weight_kq = add_product(v_kd, tl.trans(d_out_qd), None)
        dv_kd = add_product(weight_kq.to(d_out_qd.dtype), d_out_qd, dv_kd)
        d_score_kq = weight_kq * (d_weight_kq - delta_q[None, :])
        dk_kd = add_product(d_score_kq.to(q_qd.dtype), q_qd, dk_kd)
    dk_kd *= scale
    if item < num_slots:
        slot = (batch * tl.num_programs(1) + tl.program_id(1)) * num_slots + item
        partial_k = slot * BLOCK + place_k
        every_k = tl.full([KEYS], True, tl.int1)
        store_tile(partial_ptr, partial_k, 2 * HEAD_DIM, every_k, dk_kd, HEAD_DIM, BLOCK_D)
        store_tile(partial_ptr + HEAD_DIM, partial_k, 2 * HEAD_DIM, every_k, dv_kd, HEAD_DIM, BLOCK_D)
    else:
        key_k = base + tl.arange(0, KEYS)
        real_k = key_k < num_keys
        offset = batch * dk_stride_b + head.to(tl.int64) * dk_stride_h
        store_tile(dk_ptr + offset, key_k, dk_stride_m, real_k, dk_kd, HEAD_DIM, BLOCK_D)
        store_tile(dv_ptr + offset, key_k, dk_stride_m, real_k, dv_kd, HEAD_DIM, BLOCK_D)


@triton.jit
def _load_pairs(per_query_ptr, query_q, real_q, MASKED: tl.constexpr):
    """lse and delta of queries, in one load: of two it would make one instruction for each column of the scores.

    Both are 0 for what is no query: its q and d_out are 0 as well, so that it adds nothing.
    """
    side_2 = tl.arange(0, 2)
    address_q2 = per_query_ptr + (query_q.to(tl.int64) * 2)[:, None] + side_2[None, :]
    if MASKED:
        return tl.split(tl.load(address_q2, mask=real_q[:, None], other=0.0))
    else:
        return tl.split(tl.load(address_q2))
