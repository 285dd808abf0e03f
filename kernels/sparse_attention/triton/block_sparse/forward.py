"""Forward pass: a program takes queries of one block, goes through the blocks of keys they see.

The softmax is online, in base 2. Segments of long rows leave out and lse of their own in scratch memory, which
`merge` joins.

Shape suffixes: b batch, h heads, n queries of the sequence, m its keys, q queries of a program, k keys of a tile, d
head_dim.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from .descriptors import tiles_of
from .launch import Tile, padded
from .lists import Lists
from .merge import merge_outputs
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
LN_2 = tl.constexpr(0.6931471805599453)
TINY = 1e-30
"""In place of a scale of 0, which would make NaN of the -inf of a hidden score: all weights are equal as well."""


def forward(q: Tensor, k: Tensor, v: Tensor, lists: Lists, scale: float, tile: Tile) -> tuple[Tensor, Tensor]:
    """out (b, h, n, d), stored token by token, and lse (b, h, n) in float32, natural log.

    q (b, h, n, d); k, v (b, h, m, d); with strides that `descriptors` can take.
    """
    batch, heads, num_queries, head_dim = q.shape
    out = torch.empty((batch, num_queries, heads, head_dim), dtype=q.dtype, device=q.device).transpose(1, 2)
    lse = torch.empty((batch, heads, num_queries), dtype=torch.float32, device=q.device)
    groups, slots = lists.groups(heads), lists.num_segments
    partial_out, partial_lse = lse, lse
    if slots:
        partial_out = lse.new_empty((batch, groups, slots, lists.block_size, head_dim))
        partial_lse = lse.new_empty((batch, groups, slots, lists.block_size))
    _forward_kernel[(lists.num_items * (lists.block_size // tile.own), groups, batch)](
        tiles_of(q, tile.own), tiles_of(k, tile.walked), tiles_of(v, tile.walked), out, lse,
        lists.mask_words, lists.blocks, lists.masks, lists.items, partial_out, partial_lse,
        scale or TINY, num_queries, lists.num_rows(num_queries), slots, *out.stride()[:3], *lse.stride()[:2],
        HEAD_DIM=head_dim, BLOCK_D=padded(head_dim), BLOCK=lists.block_size, QUERIES=tile.own, KEYS=tile.walked,
        PER_HEAD=lists.per_head, NEGATIVE=scale < 0, **tile.options,
    )  # fmt: skip
    if slots:
        merge_outputs(partial_out, partial_lse, lists, out, lse)
    return out, lse


@Kernel
@triton.jit(do_not_specialize=["num_queries", "num_rows", "num_slots"])
def _forward_kernel(
    q, k, v, out_ptr, lse_ptr, words_ptr, blocks_ptr, masks_ptr, items_ptr, partial_ptr, partial_lse_ptr,
    scale, num_queries, num_rows, num_slots,
    out_stride_b, out_stride_h, out_stride_n, lse_stride_b, lse_stride_h,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    PER_HEAD: tl.constexpr, NEGATIVE: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0) // (BLOCK // QUERIES)
    row, start = tl.load(items_ptr + 4 * item), tl.load(items_ptr + 4 * item + 1)
    end, block = tl.load(items_ptr + 4 * item + 2), tl.load(items_ptr + 4 * item + 3)
    head, base, first = own_rows(row, num_rows, PER_HEAD, BLOCK, QUERIES)
    place_q = first + tl.arange(0, QUERIES)
    q_qd = load_tile(q, head, base, QUERIES, BLOCK_D)

    top_q = tl.full([QUERIES], float("-inf"), tl.float32)
    total_q = tl.zeros([QUERIES], tl.float32)
    out_qd = tl.zeros([QUERIES, BLOCK_D], tl.float32)
    factor = scale * LOG2_E
    # Where the factor turns it into -inf.
    HIDDEN: tl.constexpr = float("inf") if NEGATIVE else float("-inf")
    mask = load_of_tile(masks_ptr, 0, start, end, BLOCK, KEYS)
    for tile in range((end - start) * (BLOCK // KEYS)):
        tile_base = block * BLOCK + first_of(tile, BLOCK, KEYS)
        k_kd = load_tile(k, head, tile_base, KEYS, BLOCK_D)
        v_kd = load_tile(v, head, tile_base, KEYS, BLOCK_D)
        score_qk = add_product(q_qd, tl.trans(k_kd), None)
        if mask != WHOLE:
            score_qk = tl.where(counts_of(words_ptr, mask, place_q, tile, BLOCK, KEYS), score_qk, HIDDEN)
        # What the next tile needs to find its rows is under way before it is wanted.
        block = load_of_tile(blocks_ptr, tile + 1, start, end, BLOCK, KEYS)
        mask = load_of_tile(masks_ptr, tile + 1, start, end, BLOCK, KEYS)
        extreme_q = tl.min(score_qk, 1) if NEGATIVE else tl.max(score_qk, 1)
        new_top_q = tl.maximum(top_q, extreme_q * factor)
        # Where no key was met yet, -inf is not to be subtracted from -inf.
        base_q = tl.where(new_top_q == float("-inf"), 0.0, new_top_q)
        weight_qk = tl.exp2(score_qk * factor - base_q[:, None])
        shrink_q = tl.exp2(top_q - base_q)
        total_q = total_q * shrink_q + tl.sum(weight_qk, 1)
        out_qd = add_product(weight_qk.to(v_kd.dtype), v_kd, out_qd * shrink_q[:, None])
        top_q = new_top_q

    empty_q = total_q == 0
    total_q = tl.where(empty_q, 1.0, total_q)
    out_qd *= (1.0 / total_q)[:, None]
    lse_q = tl.where(empty_q, float("-inf"), top_q + tl.log2(total_q))
    batch = tl.program_id(2).to(tl.int64)
    if item < num_slots:
        slot = (batch * tl.num_programs(1) + tl.program_id(1)) * num_slots + item
        partial_q = slot * BLOCK + place_q
        every_q = tl.full([QUERIES], True, tl.int1)
        store_tile(partial_ptr, partial_q, HEAD_DIM, every_q, out_qd, HEAD_DIM, BLOCK_D)
        tl.store(partial_lse_ptr + partial_q, lse_q)
    else:
        query_q = base + tl.arange(0, QUERIES)
        real_q = query_q < num_queries
        out_ptr += batch * out_stride_b + head.to(tl.int64) * out_stride_h
        store_tile(out_ptr, query_q, out_stride_n, real_q, out_qd, HEAD_DIM, BLOCK_D)
        lse_ptr += batch * lse_stride_b + head.to(tl.int64) * lse_stride_h
        tl.store(lse_ptr + query_q, lse_q * LN_2, mask=real_q)
