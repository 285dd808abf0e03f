"""Which items each rank reads, and in which order."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Sampler


class ConsecutiveItems(Sampler[int]):
    """Item numbers without end, dealt out over the ranks: first + rank, then every `world_size`-th.

    `first` is asked anew at each pass, so that a pass goes on where training has come to.
    """

    def __init__(self, first: Callable[[], int], *, rank: int = 0, world_size: int = 1) -> None:
        self._first, self._rank, self._world_size = first, rank, world_size

    def __iter__(self) -> Iterator[int]:
        item = self._first() + self._rank
        while True:
            yield item
            item += self._world_size


class TileBatches(Sampler[list[int]]):
    """Batches of tiles of equal size, dealt out over the ranks; every tile is in one batch of one rank.

    A rank that comes out one batch short gets its share of the blank tiles that `TiledCrops` keeps behind its last.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        tiles_of_size: dict[int, list[int]] = defaultdict(list)
        for tile, size in enumerate(sizes):
            tiles_of_size[size].append(tile)
        batches = [
            tiles[first : first + batch_size]
            for tiles in tiles_of_size.values()
            for first in range(0, len(tiles), batch_size)
        ]
        num_missing = -len(batches) % world_size
        batches += [[len(sizes) + tile for tile in batches[0]] for _ in range(num_missing)]
        self._batches = batches[rank::world_size]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)
