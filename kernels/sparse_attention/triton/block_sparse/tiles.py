"""How all block sparse kernels find, read and mask the rows of their tiles.

A tile is a block or an equal part of one: BLOCK is a multiple of TILE, its number of rows. Suffixes: o rows that a
program owns, t rows of a tile that it walks over, d head_dim.
"""

# What `triton.jit` returns is typed as the kernel itself, not as something to launch.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportAssignmentType=false
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

WHOLE = tl.constexpr(-1)
"""In place of a mask: every pair of the block counts."""
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def add_product(a, b, total):
    """total + a b, with products and sums in float32; those of float32 inputs are not rounded to fewer bits."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        # The interpreter would multiply the bits of bfloat16 as if they were integers.
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")


@triton.jit
def load_of_tile(list_ptr, tile, start, end, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """What a list says of the entry of a tile; of the tiles of entries `start` to `end` - 1 this is number `tile`."""
    entry = start + tile // (BLOCK // TILE)
    return tl.load(list_ptr + entry, mask=entry < end, other=0)


@triton.jit
def first_of(tile, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """Where within its block a tile begins."""
    if TILE < BLOCK:
        return (tile % (BLOCK // TILE)) * TILE
    else:
        return 0


@triton.jit
def own_rows(row, num_rows, PER_HEAD: tl.constexpr, BLOCK: tl.constexpr, OWN: tl.constexpr):
    """(head, batch, base, first) of a program: it owns the rows from `base` on, which is place `first` of a block.

    row: that of its item, which counts through all heads if the lists are PER_HEAD.
    """
    if PER_HEAD:
        head = row // num_rows
        row = row % num_rows
    else:
        head = tl.program_id(1)
    first = first_of(tl.program_id(0), BLOCK, OWN)
    return head.to(tl.int64), tl.program_id(2).to(tl.int64), row * BLOCK + first, first


@triton.jit
def load_tile(
    start, base, row_t, stride, real_t, dim_d, MASKED: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
):
    """(t, d) rows `base + row_t` of a matrix; zeros where a row is not real, which is looked at if MASKED."""
    address_td = _addresses(start, base, row_t, stride, dim_d)
    if MASKED:
        return tl.load(address_td, mask=_mask(real_t, dim_d, HEAD_DIM, BLOCK_D), other=0.0)
    elif HEAD_DIM != BLOCK_D:
        return tl.load(address_td, mask=(dim_d < HEAD_DIM)[None, :], other=0.0)
    else:
        return tl.load(address_td)


@triton.jit
def store_tile(start, base, row_t, stride, real_t, dim_d, value_td, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write (t, d) rows in the dtype of the matrix; rows that are not real stay as they are."""
    address_td = _addresses(start, base, row_t, stride, dim_d)
    mask_td = _mask(real_t, dim_d, HEAD_DIM, BLOCK_D)
    tl.store(address_td, value_td.to(start.dtype.element_ty), mask=mask_td)


@triton.jit
def _addresses(start, base, row_t, stride, dim_d):
    # One product in 64 bits a tile; within a tile 32 bits do, for strides up to `MOST_STRIDE`.
    return start + base.to(tl.int64) * stride + ((row_t * stride)[:, None] + dim_d[None, :])


@triton.jit
def _mask(real_t, dim_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    if HEAD_DIM == BLOCK_D:
        return real_t[:, None]
    else:
        return real_t[:, None] & (dim_d < HEAD_DIM)[None, :]


@triton.jit
def counts_of(words_ptr, mask, place_o, tile, BLOCK: tl.constexpr, TILE: tl.constexpr):
    """(o, t): which pairs of the rows at `place_o` of a block and those of a tile count by the mask of its entry."""
    NUM_WORDS: tl.constexpr = BLOCK // 32 if BLOCK > 32 else 1
    row_t = tl.arange(0, TILE)
    first = first_of(tile, BLOCK, TILE)
    word_ptr_o = words_ptr + (mask * BLOCK + place_o) * NUM_WORDS + first // 32
    word_ot = tl.load(word_ptr_o)[:, None]
    for word in tl.static_range(1, TILE // 32):
        word_ot = tl.where((row_t // 32 == word)[None, :], tl.load(word_ptr_o + word)[:, None], word_ot)
    return ((word_ot >> ((first + row_t) % 32)[None, :]) & 1) != 0
