"""Join what the segments of long rows left in scratch memory, in the order of the segments.

Each row of blocks is shared among as many programs as it has segments. Suffixes: s segments held at once, r rows
(queries or keys) held at once, d head_dim. `group` is a head, or 0 where the lists tell the head.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import triton
import triton.language as tl
from torch import Tensor

from ..kernel import Kernel
from .launch import padded
from .lists import Lists
from .tiles import store_tile

LN_2 = tl.constexpr(0.6931471805599453)
ELEMENTS = 2048
SEGMENTS = 32


def merge_outputs(partial_out: Tensor, partial_lse: Tensor, lists: Lists, out: Tensor, lse: Tensor) -> None:
    """Fill the long rows of out (b, h, n, d) and lse (b, h, n).

    From partial_out (b, g, S, B, d) and partial_lse (b, g, S, B), which is in base 2.
    """
    num_queries = out.shape[2]
    _merge_outputs_kernel[(lists.num_segments, *_groups(partial_out))](
        partial_out, partial_lse, lists.splits, out, lse, num_queries, lists.num_rows(num_queries),
        lists.num_segments, *out.stride()[:3], *lse.stride()[:2], **_constants(partial_out),
    )  # fmt: skip


def merge_sums(partial: Tensor, lists: Lists, sums: tuple[Tensor, ...]) -> None:
    """Fill the long rows of one or two matrices (b, h, n, d) of the same strides.

    From partial (b, g, S, B, matrices, d).
    """
    first, last = sums[0], sums[-1]
    length = first.shape[2]
    groups, batch = _groups(partial)
    _merge_sums_kernel[(lists.num_segments, groups * len(sums), batch)](
        partial, lists.splits, first, last, length, lists.num_rows(length), lists.num_segments, *first.stride()[:3],
        MATRICES=len(sums), **_constants(partial),
    )  # fmt: skip


def _groups(partial: Tensor) -> tuple[int, int]:
    return partial.shape[1], partial.shape[0]


def _constants(partial: Tensor) -> dict[str, int]:
    head_dim, block_size = partial.shape[-1], partial.shape[3]
    width = padded(head_dim)
    return {
        "HEAD_DIM": head_dim, "BLOCK_D": width, "BLOCK": block_size,
        "ROWS": max(1, ELEMENTS // (SEGMENTS * width)), "SEGMENTS": SEGMENTS,
    }  # fmt: skip


@Kernel
@triton.jit(do_not_specialize=["num_queries", "num_rows", "num_slots"])
def _merge_outputs_kernel(
    partial_ptr, partial_lse_ptr, splits_ptr, out_ptr, lse_ptr, num_queries, num_rows, num_slots,
    out_stride_b, out_stride_h, out_stride_n, lse_stride_b, lse_stride_h,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    row, first, count, head, batch, slots = _split(splits_ptr, num_rows, num_slots, 1)
    dim_d = tl.arange(0, BLOCK_D)
    out_ptr += batch * out_stride_b + head * out_stride_h
    lse_ptr += batch * lse_stride_b + head * lse_stride_h
    partial_ptr += slots * BLOCK * HEAD_DIM
    partial_lse_ptr += slots * BLOCK
    for part in range(tl.program_id(0) - first, BLOCK // ROWS, count):
        place_r = part * ROWS + tl.arange(0, ROWS)
        top_r = tl.full([ROWS], float("-inf"), tl.float32)
        total_r = tl.zeros([ROWS], tl.float32)
        out_rd = tl.zeros([ROWS, BLOCK_D], tl.float32)
        for next_segment in range(first, first + count, SEGMENTS):
            segment_s = next_segment + tl.arange(0, SEGMENTS)
            real_s = segment_s < first + count
            row_sr = segment_s[:, None].to(tl.int64) * BLOCK + place_r[None, :]
            lse_sr = tl.load(partial_lse_ptr + row_sr, mask=real_s[:, None], other=float("-inf"))
            partial_srd = _load_partial(partial_ptr, row_sr, real_s, dim_d, HEAD_DIM, BLOCK_D)
            new_top_r = tl.maximum(top_r, tl.max(lse_sr, 0))
            base_r = tl.where(new_top_r == float("-inf"), 0.0, new_top_r)
            weight_sr = tl.exp2(lse_sr - base_r[None, :])
            shrink_r = tl.exp2(top_r - base_r)
            total_r = total_r * shrink_r + tl.sum(weight_sr, 0)
            out_rd = out_rd * shrink_r[:, None] + tl.sum(weight_sr[:, :, None] * partial_srd, 0)
            top_r = new_top_r
        empty_r = total_r == 0
        total_r = tl.where(empty_r, 1.0, total_r)
        query_r = row * BLOCK + place_r
        real_r = query_r < num_queries
        out_rd /= total_r[:, None]
        store_tile(out_ptr, query_r, out_stride_n, real_r, out_rd, HEAD_DIM, BLOCK_D)
        lse_r = tl.where(empty_r, float("-inf"), (top_r + tl.log2(total_r)) * LN_2)
        tl.store(lse_ptr + query_r, lse_r, mask=real_r)


@Kernel
@triton.jit(do_not_specialize=["length", "num_rows", "num_slots"])
def _merge_sums_kernel(
    partial_ptr, splits_ptr, first_ptr, last_ptr, length, num_rows, num_slots, stride_b, stride_h, stride_n,
    MATRICES: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    row, first, count, head, batch, slots = _split(splits_ptr, num_rows, num_slots, MATRICES)
    matrix = tl.program_id(1) % MATRICES
    sum_ptr = (first_ptr if matrix == 0 else last_ptr) + batch * stride_b + head * stride_h
    dim_d = tl.arange(0, BLOCK_D)
    partial_ptr += slots * BLOCK * MATRICES * HEAD_DIM
    for part in range(tl.program_id(0) - first, BLOCK // ROWS, count):
        place_r = part * ROWS + tl.arange(0, ROWS)
        sum_rd = tl.zeros([ROWS, BLOCK_D], tl.float32)
        for next_segment in range(first, first + count, SEGMENTS):
            segment_s = next_segment + tl.arange(0, SEGMENTS)
            row_sr = (segment_s[:, None].to(tl.int64) * BLOCK + place_r[None, :]) * MATRICES + matrix
            partial_srd = _load_partial(partial_ptr, row_sr, segment_s < first + count, dim_d, HEAD_DIM, BLOCK_D)
            sum_rd += tl.sum(partial_srd, 0)
        row_r = row * BLOCK + place_r
        store_tile(sum_ptr, row_r, stride_n, row_r < length, sum_rd, HEAD_DIM, BLOCK_D)


@triton.jit
def _split(splits_ptr, num_rows, num_slots, MATRICES: tl.constexpr):
    """Row of blocks, its first segment, how many it has, head, batch, and where the segments of this group begin."""
    slot, group = tl.program_id(0), tl.program_id(1) // MATRICES
    row, first = tl.load(splits_ptr + 3 * slot), tl.load(splits_ptr + 3 * slot + 1)
    count = tl.load(splits_ptr + 3 * slot + 2)
    batch = tl.program_id(2).to(tl.int64)
    slots = (batch * (tl.num_programs(1) // MATRICES) + group) * num_slots
    return row % num_rows, first, count, (group + row // num_rows).to(tl.int64), batch, slots


@triton.jit
def _load_partial(partial_ptr, row_sr, real_s, dim_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    mask_srd = real_s[:, None, None] & (dim_d < HEAD_DIM)[None, None, :]
    return tl.load(partial_ptr + row_sr[:, :, None] * HEAD_DIM + dim_d[None, None, :], mask=mask_srd, other=0.0)
