"""How rows are cut into tiles."""

from collections.abc import Iterator


def even_tiles(num_rows: int, longest: int | None) -> Iterator[slice]:
    """Slices that cover all rows: as few as `longest` allows, of one length, but for the last one, which is shorter.

    As many tiles take as long, and the shorter they are the less they hold. longest: None takes all rows at once.
    """
    num_tiles = 1 if longest is None else max(1, -(-num_rows // longest))
    tile = max(1, -(-num_rows // num_tiles))
    return (slice(start, min(start + tile, num_rows)) for start in range(0, num_rows, tile))
