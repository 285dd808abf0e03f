"""Dropout inside of kernels: whether an element stays is a hash of seed, row and feature, so that no mask is stored.

Two rounds of a 32-bit integer hash (multiply and xorshift, with the constants of C. Wellons' search, "lowbias32"), one
for the row and one for the element. Dropout needs draws that look independent, not a cipher, and must not be the
dearest part of a kernel that does little else.
"""

# Inside of kernels, values are not what their types say.
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def keeps(seed, row_r, feature_f, dropout):
    """(r, f) booleans, true with probability 1 - dropout. seed: int64; row_r: int64 numbers of the rows."""
    low, high = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    row_r = _mix(row_r.to(tl.uint32) ^ low) + (row_r >> 32).to(tl.uint32) + high
    hash_rf = _mix(_mix(row_r)[:, None] ^ (feature_f.to(tl.uint32) * 0x9E3779B9)[None, :])
    return (hash_rf >> 8).to(tl.int32).to(tl.float32) * (1.0 / (1 << 24)) >= dropout


@triton.jit
def _mix(x):
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)
