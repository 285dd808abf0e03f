"""How all kernels of the index list read and write rows of head_dim."""

import torch
import triton
import triton.language as tl
from triton import knobs

PTX = tl.constexpr(torch.version.cuda is not None and not knobs.runtime.interpret)
"""Whether kernels are compiled by way of NVIDIA's assembly language."""


@triton.jit
def widen(x):
    """x in float32.

    A register holds two numbers of bfloat16, which are the upper halves of the same numbers in float32: one instruction
    for each of the two. The compiler by itself takes three for both.
    """
    if PTX and x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=r,=r,r", [x], dtype=tl.float32, is_pure=True, pack=2
        )
    return x.to(tl.float32)


@triton.jit
def dims_of(piece, BLOCK_D: tl.constexpr):
    """The dims of head_dim that belong to a piece."""
    return piece * BLOCK_D + tl.arange(0, BLOCK_D)


@triton.jit
def gather_rows(
    start,
    row_sq,
    stride,
    dim_d,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    QUERIES: tl.constexpr,
    FAR: tl.constexpr,
):
    """(s, q, d): row `row_sq` of a matrix whose rows lie `stride` elements apart; zeros where it is -1.

    FAR: offsets within a head may pass 2^31 elements, and need twice the arithmetic.
    """
    row_sqd = row_sq[:, :, None]
    mask_sqd = row_sqd >= 0
    if HEAD_DIM % BLOCK_D != 0:
        mask_sqd = mask_sqd & (dim_d < HEAD_DIM)[None, None, :]
    if FAR:
        row_sqd = row_sqd.to(tl.int64)
    # Threads are spread first over the dims that the compiler takes to be contiguous. Being told so of neighbouring
    # queries it leaves all slots of a query to one thread, and sums over slots need no exchange between threads.
    address_sqd = tl.max_contiguous(start + (row_sqd * stride + dim_d[None, None, :]), [1, min(2, QUERIES), BLOCK_D])
    return tl.load(address_sqd, mask=mask_sqd, other=0.0)


@triton.jit
def load_rows(start, row_q, stride, valid_q, dim_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """(q, d) rows of a matrix; zeros where a row is not valid."""
    mask_qd = valid_q[:, None]
    if HEAD_DIM % BLOCK_D != 0:
        mask_qd = mask_qd & (dim_d < HEAD_DIM)[None, :]
    return tl.load(start + ((row_q.to(tl.int64) * stride)[:, None] + dim_d[None, :]), mask=mask_qd, other=0.0)


@triton.jit
def store_rows(start, row_q, stride, valid_q, dim_d, value_qd, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write (q, d) rows in the dtype of the matrix; rows that are not valid stay as they are."""
    mask_qd = valid_q[:, None]
    if HEAD_DIM % BLOCK_D != 0:
        mask_qd = mask_qd & (dim_d < HEAD_DIM)[None, :]
    address_qd = start + ((row_q.to(tl.int64) * stride)[:, None] + dim_d[None, :])
    tl.store(address_qd, value_qd.to(start.dtype.element_ty), mask=mask_qd)
