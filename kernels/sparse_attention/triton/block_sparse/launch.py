"""Launch parameters of the block sparse kernels: how much one program takes on.

They depend on the dtype's size, head_dim and the block size, never on the length of the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Tile:
    """own: rows that a program keeps: queries, or keys for their gradients.
    walked: rows of the other side held at once. Both divide the block size: a block may have several programs, and a
    program take several steps a block.
    warps, stages: of a program; how many loads of `walked` rows are under way at once. registers: most of a thread.
    """

    own: int
    walked: int
    warps: int = 4
    stages: int = 2
    registers: int | None = None

    @property
    def options(self) -> dict[str, int]:
        """What Triton's compiler is told; a limit on registers is known to the one for NVIDIA alone."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        if self.registers is None or torch.version.hip is not None:
            return options
        return {**options, "maxnreg": self.registers}


@dataclass(frozen=True)
class Tiles:
    """One tile for each kernel."""

    forward: Tile
    by_row: Tile
    by_column: Tile


def power_of_two(least: int) -> int:
    """The smallest power of two from `least` on."""
    return 1 << (least - 1).bit_length()


def padded(head_dim: int) -> int:
    """Width of the tiles that hold rows of head_dim: tensor cores take no less than 16."""
    return max(16, power_of_two(head_dim))


CURATED: dict[tuple[int, int, int], Tiles] = {
    (2, 64, 16): Tiles(Tile(16, 16, 1, 2), Tile(16, 16, 1, 3), Tile(16, 16, 1, 3)),
    (2, 64, 32): Tiles(Tile(32, 32, 1, 3), Tile(32, 32, 1, 3), Tile(32, 32, 2, 3)),
    (2, 64, 64): Tiles(Tile(64, 64, 4, 2, 96), Tile(64, 64, 4, 2), Tile(64, 64, 4, 3, 168)),
    (2, 64, 128): Tiles(Tile(64, 64, 4, 2, 96), Tile(64, 64, 4, 2), Tile(64, 64, 4, 3, 168)),
    (2, 128, 64): Tiles(Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    (2, 128, 128): Tiles(Tile(64, 64, 4, 3), Tile(64, 64, 4, 2), Tile(64, 64, 4, 2)),
    (4, 64, 64): Tiles(Tile(64, 64, 8, 1), Tile(32, 32, 4, 1), Tile(32, 32, 4, 1)),
}
"""(bytes of an element, padded head_dim, block size) -> the fastest found on an NVIDIA H100."""


def tiles_for(dtype: torch.dtype, head_dim: int, block_size: int) -> Tiles:
    """Launch parameters for these shapes."""
    key = (dtype.itemsize, padded(head_dim), block_size)
    return CURATED.get(key) or rule(*key)


@cache
def rule(itemsize: int, width: int, block_size: int) -> Tiles:
    """Tiles whose sums and scores fit the registers of a program."""
    if itemsize == 4:
        # Without tensor cores: every thread holds its part of both operands.
        tile = Tile(min(block_size, 32 if width <= 128 else 16), min(block_size, 32 if width <= 64 else 16), 4, 1)
        return Tiles(tile, tile, tile)
    own, narrow = min(block_size, 64), min(block_size, 32)
    warps = max(1, own // 16)
    if width <= 64:
        return Tiles(Tile(own, own, warps, 2), Tile(own, own, warps, 2), Tile(own, own, warps, 3))
    if width == 128:
        return Tiles(Tile(own, own, warps, 3), Tile(own, own, warps, 2), Tile(own, own, warps, 2))
    if width == 256:
        return Tiles(Tile(own, narrow, 8, 2), Tile(own, narrow, 8, 2), Tile(narrow, narrow, 4, 2))
    return Tiles(Tile(narrow, narrow, 8, 1), Tile(narrow, narrow, 8, 1), Tile(narrow, 16, 8, 1))
