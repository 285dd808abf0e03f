"""How rows are cut into tiles."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

MOST_TILES = 3
"""Tiles that are computed inside of `some_tiles_only`."""

_SOME_ONLY: ContextVar[bool] = ContextVar("some_only", default=False)


def even_tiles(num_rows: int, longest: int | None) -> Iterator[slice]:
    """Slices that cover all rows: as few as `longest` allows, of one length, but for the last one, which is shorter.

    As many tiles take as long, and the shorter they are the less they hold. longest: None takes all rows at once.
    """
    num_tiles = 1 if longest is None else max(1, -(-num_rows // longest))
    tile = max(1, -(-num_rows // num_tiles))
    return (slice(start, min(start + tile, num_rows)) for start in tile_starts(num_rows, tile))


def tile_starts(num_rows: int, tile: int) -> Sequence[int]:
    """The first row of each tile."""
    starts = range(0, num_rows, tile)
    return [*starts[:2], *starts[2:][-1:]] if _SOME_ONLY.get() else starts


@contextlib.contextmanager
def some_tiles_only() -> Iterator[None]:
    """Inside, only the first two tiles and the last one are computed, for counting bytes over tensors without data.

    All others hold what the second one does, so that the peak is the same however long the sequence is. Results are
    wrong.
    """
    token = _SOME_ONLY.set(True)
    try:
        yield
    finally:
        _SOME_ONLY.reset(token)
