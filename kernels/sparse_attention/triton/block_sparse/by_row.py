"""Gradient of the queries: a program takes queries of one block and goes through the blocks of keys they see.

Shape suffixes: b batch, h heads, n queries of the sequence, m its keys, q queries of a program, k keys of a tile, d
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


def by_row(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, per_query: Tensor,
    lists: Lists, scale: float, tile: Tile, dq: Tensor,
) -> None:  # fmt: skip
    """Fill dq (b, h, n, d), and per_query (b, h, n, 2): lse in base 2, +inf where there is no key, and delta."""
    batch, heads, num_queries, head_dim = q.shape
    groups, slots = lists.groups(heads), lists.num_segments
    partial = lse.new_empty((batch, groups, slots, lists.block_size, 1, head_dim)) if slots else lse
    _by_row_kernel[(lists.num_items * (lists.block_size // tile.own), groups, batch)](
        tiles_of(d_out, tile.own), tiles_of(q, tile.own), tiles_of(k, tile.walked), tiles_of(v, tile.walked),
        tiles_of(out, tile.own), lse if d_lse is None else d_lse, lse, per_query, dq,
        lists.mask_words, lists.blocks, lists.masks, lists.items, partial,
        scale, num_queries, lists.num_rows(num_queries), slots, *dq.stride()[:3], *lse.stride()[:2],
        HAS_D_LSE=d_lse is not None, HEAD_DIM=head_dim, BLOCK_D=padded(head_dim), BLOCK=lists.block_size,
        QUERIES=tile.own, KEYS=tile.walked, PER_HEAD=lists.per_head, **tile.options,
    )  # fmt: skip
    if slots:
        merge_sums(partial, lists, (dq,))


@Kernel
@triton.jit(do_not_specialize=["num_queries", "num_rows", "num_slots"])
def _by_row_kernel(
    d_out, q, k, v, out, d_lse_ptr, lse_ptr, per_query_ptr, dq_ptr,
    words_ptr, blocks_ptr, masks_ptr, items_ptr, partial_ptr,
    scale, num_queries, num_rows, num_slots, dq_stride_b, dq_stride_h, dq_stride_n, lse_stride_b, lse_stride_h,
    HAS_D_LSE: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, PER_HEAD: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0) // (BLOCK // QUERIES)
    row, start = tl.load(items_ptr + 4 * item), tl.load(items_ptr + 4 * item + 1)
    end, block = tl.load(items_ptr + 4 * item + 2), tl.load(items_ptr + 4 * item + 3)
    head, base, first = own_rows(row, num_rows, PER_HEAD, BLOCK, QUERIES)
    row_q = tl.arange(0, QUERIES)
    place_q = first + row_q
    query_q = base + row_q
    real_q = query_q < num_queries
    batch = tl.program_id(2).to(tl.int64)
    per_head = batch * lse_stride_b + head.to(tl.int64) * lse_stride_h

    d_out_qd = load_tile(d_out, head, base, QUERIES, BLOCK_D)
    out_qd = load_tile(out, head, base, QUERIES, BLOCK_D)
    delta_q = tl.sum(out_qd.to(tl.float32) * d_out_qd.to(tl.float32), 1)
    if HAS_D_LSE:
        delta_q -= tl.load(d_lse_ptr + per_head + query_q, mask=real_q, other=0.0)
    lse_q = tl.load(lse_ptr + per_head + query_q, mask=real_q, other=float("-inf"))
    # Weights of a query without keys become 0, and so do its gradients, whatever reached its lse.
    empty_q = lse_q == float("-inf")
    delta_q = tl.where(empty_q, 0.0, delta_q)
    lse_q = tl.where(empty_q, float("inf"), lse_q * LOG2_E)
    # All segments of a row write the same numbers.
    per_query_ptr += 2 * (per_head + query_q)
    tl.store(per_query_ptr, lse_q, mask=real_q)
    tl.store(per_query_ptr + 1, delta_q, mask=real_q)

    q_qd = load_tile(q, head, base, QUERIES, BLOCK_D)
    dq_qd = tl.zeros([QUERIES, BLOCK_D], tl.float32)
    factor = scale * LOG2_E
    mask = load_of_tile(masks_ptr, 0, start, end, BLOCK, KEYS)
    for tile in range((end - start) * (BLOCK // KEYS)):
        tile_base = block * BLOCK + first_of(tile, BLOCK, KEYS)
        k_kd = load_tile(k, head, tile_base, KEYS, BLOCK_D)
        v_kd = load_tile(v, head, tile_base, KEYS, BLOCK_D)
        score_qk = add_product(q_qd, tl.trans(k_kd), None)
        weight_qk = tl.exp2(score_qk * factor - lse_q[:, None])
        if mask != WHOLE:
            weight_qk = tl.where(counts_of(words_ptr, mask, place_q, tile, BLOCK, KEYS), weight_qk, 0.0)
        d_weight_qk = add_product(d_out_qd, tl.trans(v_kd), None)
        # What the next tile needs to find its rows is under way before it is wanted.
        block = load_of_tile(blocks_ptr, tile + 1, start, end, BLOCK, KEYS)
        mask = load_of_tile(masks_ptr, tile + 1, start, end, BLOCK, KEYS)
        d_score_qk = weight_qk * (d_weight_qk - delta_q[:, None])
        dq_qd = add_product(d_score_qk.to(k_kd.dtype), k_kd, dq_qd)
    dq_qd *= scale
    if item < num_slots:
        slot = (batch * tl.num_programs(1) + tl.program_id(1)) * num_slots + item
        every_q = tl.full([QUERIES], True, tl.int1)
        store_tile(partial_ptr, slot * BLOCK + place_q, HEAD_DIM, every_q, dq_qd, HEAD_DIM, BLOCK_D)
    else:
        dq_ptr += batch * dq_stride_b + head.to(tl.int64) * dq_stride_h
        store_tile(dq_ptr, query_q, dq_stride_n, real_q, dq_qd, HEAD_DIM, BLOCK_D)
