"""A matrix product that ends with the slope of ReLU and dropout, so that their gradient costs no pass of its own.

    out = where(mask != 0, factor * (a b), 0), and the sum of each column of it

Programs stay on their processor and take one tile of the result after another; tiles of a few rows of blocks at a time,
so that a and b are found in the L2 cache.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from longtag.fused.launch import is_fake, processors_of
from sparse_attention.triton.kernel import Kernel

BLOCK_N, BLOCK_F, BLOCK_M = 128, 256, 64
"""Rows, columns and depth of a tile: the fastest of those tried on an H100."""
GROUP = 8
"""Rows of tiles that are walked together."""
STAGES = 3
"""Tiles in depth that are under way at a time."""


def why_not(a: Tensor, b: Tensor) -> str | None:
    """Why the kernel cannot multiply a (n, m) by b (m, f), or None when it can."""
    if a.dtype not in (torch.bfloat16, torch.float16):
        return "tensor cores take 16 bits, and float32 is multiplied in full"
    if a.device.type == "cuda" and not is_fake(a) and torch.cuda.get_device_capability(a.device) < (9, 0):
        return "it is made for the copy engine of compute capability 9.0"
    if b.shape[0] % 8 or b.shape[1] % 8:
        return f"rows of {b.shape[0]} and {b.shape[1]} elements do not start at multiples of 16 bytes"
    return None


def masked_product(a: Tensor, b: Tensor, mask: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """a (n, m), b (m, f), mask (n, f), contiguous, of one dtype -> (n, f) and its column sums, (f,) float32."""
    num_rows, depth = a.shape
    features = b.shape[1]
    out = torch.empty_like(mask)
    rows_of_tiles = -(-num_rows // BLOCK_N)
    sums = torch.empty((rows_of_tiles, features), dtype=torch.float32, device=a.device)
    if not is_fake(a):
        _kernel[(min(processors_of(a.device), rows_of_tiles * -(-features // BLOCK_F)),)](
            TensorDescriptor.from_tensor(a, [BLOCK_N, BLOCK_M]),
            TensorDescriptor.from_tensor(b, [BLOCK_M, BLOCK_F]),
            TensorDescriptor.from_tensor(mask, [BLOCK_N, BLOCK_F]),
            TensorDescriptor.from_tensor(out, [BLOCK_N, BLOCK_F]),
            sums, factor, num_rows, features, DEPTH=depth,
            BLOCK_N=BLOCK_N, BLOCK_F=BLOCK_F, BLOCK_M=BLOCK_M, GROUP=GROUP, num_warps=8, num_stages=stages_of(depth),
        )  # fmt: skip
    return out, sums.sum(0)


def stages_of(depth: int) -> int:
    """Stages for a depth. Of one tile there is no loop, and tiles of the mask would be staged: too many to hold."""
    return STAGES if depth > BLOCK_M else 1


@Kernel
@triton.jit(do_not_specialize=["num_rows"])
def _kernel(
    a, b, mask, out, sums_ptr, factor, num_rows, features, DEPTH: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_M: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    rows_of_tiles, columns = tl.cdiv(num_rows, BLOCK_N), tl.cdiv(features, BLOCK_F)
    for tile in range(tl.program_id(0), rows_of_tiles * columns, tl.num_programs(0)):
        group = tile // (GROUP * columns)
        height = min(rows_of_tiles - group * GROUP, GROUP)
        row = group * GROUP + (tile % (GROUP * columns)) % height
        column = (tile % (GROUP * columns)) // height
        out_nf = tl.zeros([BLOCK_N, BLOCK_F], tl.float32)
        for first in range(0, DEPTH, BLOCK_M):
            a_nm = a.load([row * BLOCK_N, first])
            b_mf = b.load([first, column * BLOCK_F])
            out_nf = tl.dot(a_nm, b_mf, out_nf)
        mask_nf = mask.load([row * BLOCK_N, column * BLOCK_F])
        # Rows past the end are read as 0, and so count for nothing.
        out_nf = tl.where(mask_nf != 0, out_nf * factor, 0.0)
        feature_f = column * BLOCK_F + tl.arange(0, BLOCK_F)
        tl.store(sums_ptr + row.to(tl.int64) * features + feature_f, tl.sum(out_nf, 0), mask=feature_f < features)
        out.store([row * BLOCK_N, column * BLOCK_F], out_nf.to(mask_nf.dtype))
