"""How all block sparse kernels find, read and mask the rows of their tiles.

A tile is a block or an equal part of one: BLOCK is a multiple of TILE, its number of rows. Rows are read through
descriptors (`descriptors.tiles_of`): what lies past the end, of the sequence or of head_dim, is read as 0. Suffixes: o
rows that a program owns, t rows of a tile that it walks over, d head_dim.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false, reportAssignmentType=false
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
    """(head, base, first) of a program: it owns the rows from `base` on, which is place `first` of a block.

    row: that of its item, which counts through all heads if the lists are PER_HEAD.
    """
    if PER_HEAD:
        head = row // num_rows
        row = row % num_rows
    else:
        head = tl.program_id(1)
    first = first_of(tl.program_id(0), BLOCK, OWN)
    return head, row * BLOCK + first, first


@triton.jit
def load_tile(matrix, head, base, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """(t, d) rows of a matrix (b, h, n, d) from row `base` on; the sequence is that of the program."""
    return matrix.load([tl.program_id(2), head, base, 0]).reshape(ROWS, BLOCK_D)


@triton.jit
def store_tile(start, row_t, stride, real_t, value_td, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write (t, d) rows in the dtype of the matrix; rows that are not real stay as they are.

    Not through a descriptor: a program would stay until the copy engine has read all of what it leaves.
    """
    dim_d = tl.arange(0, BLOCK_D)
    address_td = start + (row_t.to(tl.int64) * stride)[:, None] + dim_d[None, :]
    mask_td = real_t[:, None]
    if HEAD_DIM != BLOCK_D:
        mask_td = mask_td & (dim_d < HEAD_DIM)[None, :]
    tl.store(address_td, value_td.to(start.dtype.element_ty), mask=mask_td)


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
