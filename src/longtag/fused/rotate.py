"""Rotary positions in place, in one pass over q and k.

Shape suffixes: r tokens of a program, p pairs of features.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl
from torch import Tensor

from longtag.fused.launch import is_fake
from sparse_attention.triton.kernel import Kernel

TOKENS, PAIRS = 4, 512
"""Held by a program at once."""


def rotate_(projected_bn3hd: Tensor, cos: Tensor, sin: Tensor, *, back: bool = False) -> None:
    """Turn q and k of a contiguous (b, n, 3, h, d); cos, sin (n, 1, 1, d) as in `Rotation`. back: the other way."""
    batch, num_tokens, _, heads, head_dim = projected_bn3hd.shape
    if is_fake(projected_bn3hd):
        return
    pairs = heads * head_dim  # of q and k together
    _kernel[(-(-batch * num_tokens // TOKENS), -(-pairs // PAIRS))](
        projected_bn3hd, cos, sin, batch * num_tokens, num_tokens, pairs, -1.0 if back else 1.0,
        HALF=head_dim // 2, TOKENS=TOKENS, PAIRS=PAIRS, num_warps=4,
    )  # fmt: skip


@Kernel
@triton.jit(do_not_specialize=["num_rows", "num_tokens"])
def _kernel(
    x_ptr, cos_ptr, sin_ptr, num_rows, num_tokens, pairs, sign,
    HALF: tl.constexpr, TOKENS: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row_r = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    pair_p = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    real_rp = (row_r < num_rows)[:, None] & (pair_p < pairs)[None, :]
    place_p = pair_p % HALF
    # Rows of q, k and v lie behind one another, and the table has a row for each position, 2 * HALF wide.
    first_rp = x_ptr + row_r[:, None] * (3 * pairs) + (pair_p // HALF * (2 * HALF) + place_p)[None, :]
    at_rp = (row_r % num_tokens)[:, None] * (2 * HALF) + place_p[None, :]
    cos_rp = tl.load(cos_ptr + at_rp, mask=real_rp, other=0.0)
    sin_rp = tl.load(sin_ptr + at_rp + HALF, mask=real_rp, other=0.0) * sign
    x1_rp = tl.load(first_rp, mask=real_rp, other=0.0).to(tl.float32)
    x2_rp = tl.load(first_rp + HALF, mask=real_rp, other=0.0).to(tl.float32)
    tl.store(first_rp, (x1_rp * cos_rp - x2_rp * sin_rp).to(x_ptr.dtype.element_ty), mask=real_rp)
    tl.store(first_rp + HALF, (x2_rp * cos_rp + x1_rp * sin_rp).to(x_ptr.dtype.element_ty), mask=real_rp)
