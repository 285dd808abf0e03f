"""Masks of blocks, one bit a pair: 128 x 128 pairs take 2 KiB.

Shapes: U masks of B x B pairs, W = max(1, B / 32) words of a row. Bit j of word w of row i is pair (i, 32 w + j).
"""

import torch
from torch import Tensor


def words_of(block_size: int) -> int:
    """W, the 32-bit words that hold one row of a mask."""
    return max(1, block_size // 32)


def pack_bits(bits: Tensor) -> Tensor:
    """(U, B, W) int32 from (U, B, B) bool."""
    count, size, _ = bits.shape
    width = min(size, 32)
    shifted = bits.view(count, size, -1, width).long() << torch.arange(width, device=bits.device)
    # Through unsigned numbers, since bit 31 is the sign of an int32.
    return shifted.sum(dim=-1).to(torch.uint32).view(torch.int32)


def unpack_bits(words: Tensor, block_size: int) -> Tensor:
    """(U, B, B) bool from (U, B, W) int32."""
    shift = torch.arange(min(block_size, 32), dtype=torch.int32, device=words.device)
    return ((words.unsqueeze(-1) >> shift) & 1).bool().flatten(-2)


def transpose_bits(words: Tensor) -> Tensor:
    """(U, B, W) int32: the masks with rows and columns swapped."""
    size = words.shape[1]
    if words.numel() == 0:
        return words
    # A thousand at a time: a bit takes eight bytes on the way.
    return torch.cat([pack_bits(unpack_bits(part, size).mT.contiguous()) for part in words.split(1024)])


def count_bits(words: Tensor) -> Tensor:
    """(U,) int64: how many pairs count by each mask."""
    shift = torch.arange(32, dtype=torch.int32, device=words.device)
    return ((words.flatten(1).unsqueeze(-1) >> shift) & 1).sum(dim=(1, 2))
