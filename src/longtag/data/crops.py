"""Cut blocks into crops: at random for training, tiled for validation and test."""

import numpy as np
import torch
from torch.utils.data import Dataset

from longtag.data.source import IGNORED, Block, Crop, Source, Split
from longtag.errors import UsageError


class RandomCrops(Dataset[Crop]):
    """An endless row of training crops; item i depends on (seed, i) alone, so that any item can be made again.

    Every possible crop of the train blocks is equally likely. With `distinct`, the row repeats after that many crops.

    Raises UsageError when no train block is as long as a crop.
    """

    def __init__(self, source: Source, *, length: int, seed: int = 0, distinct: int | None = None) -> None:
        blocks = source.blocks("train")
        self._source, self._length, self._seed, self._distinct = source, length, seed, distinct
        self._blocks = [block for block in blocks if block.size >= length]
        if not self._blocks:
            longest = max(block.size for block in blocks)
            raise UsageError(
                f"tokens={length}: no train block is that long, the longest has {longest} tokens; "
                f"set tokens={longest} or less, or give data with longer train blocks"
            )
        self._ends = np.cumsum([_num_starts(block, length) for block in self._blocks])

    def __getitem__(self, index: int) -> Crop:
        block, start, rng = self._draw(index)
        return self._source.read(block, start, self._length, rng)

    def place(self, index: int) -> str:
        """Where item `index` lies: its record and its first and last token, counted from 0 in the record."""
        block, start, _ = self._draw(index)
        first = block.start + start
        return f"tokens {first:,} to {first + self._length - 1:,} of record {block.record}"

    def _draw(self, index: int) -> tuple[Block, int, np.random.Generator]:
        """The block of an item, where it starts in it, and what is left of its random numbers."""
        rng = np.random.default_rng([self._seed, index if self._distinct is None else index % self._distinct])
        choice = int(rng.integers(self._ends[-1]))
        block = int(np.searchsorted(self._ends, choice, side="right"))
        start = choice - (int(self._ends[block - 1]) if block else 0)
        return self._blocks[block], start, rng


def _num_starts(block: Block, length: int) -> int:
    return block.size if block.circular else block.size - length + 1


class TiledCrops(Dataset[Crop]):
    """The blocks of a split as tiles: every token lies in one or two tiles, and is scored in exactly one.

    The last tile of a block is shifted back to have the full length; tokens that the tile before has scored are
    ignored in it. A block shorter than a tile is one shorter tile. With `limit`, that many tiles spread evenly.

    Index len(self) + i gives tile i with every label ignored: what a rank reads when it has run out of tiles, so that
    all ranks take the same number of steps.
    """

    def __init__(self, source: Source, split: Split, *, length: int, limit: int | None = None) -> None:
        self._source = source
        tiles = [tile for block in source.blocks(split) for tile in _tile(block, length)]
        if limit is not None and limit < len(tiles):
            tiles = [tiles[(2 * i + 1) * len(tiles) // (2 * limit)] for i in range(limit)]
        self._tiles = tiles
        self.sizes = [min(length, block.size) for block, _, _ in tiles]
        """Tokens of each tile."""

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> Crop:
        block, start, num_scored_before = self._tiles[index % len(self)]
        size = self.sizes[index % len(self)]
        inputs, labels, *distances = self._source.read(block, start, size)
        num_ignored = size if index >= len(self) else num_scored_before
        if num_ignored:
            labels = torch.cat([torch.full((num_ignored,), IGNORED), labels[num_ignored:]])
        return inputs, labels, *distances


def _tile(block: Block, length: int) -> list[tuple[Block, int, int]]:
    """(block, start, tokens at the start that the tile before has scored) of each tile."""
    last_start = max(block.size - length, 0)
    return [(block, min(start, last_start), start - min(start, last_start)) for start in range(0, block.size, length)]
