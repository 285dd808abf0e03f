"""How rows are cut into tiles."""

import pytest

from longtag.memory.even_tiles import even_tiles


@pytest.mark.parametrize("num_rows", [1, 2, 7, 100, 101])
@pytest.mark.parametrize("longest", [1, 3, 10, 50, 99, 100, 1000, None])
def test_tiles_are_few_and_alike(num_rows, longest):
    tiles = list(even_tiles(num_rows, longest))
    assert [row for tile in tiles for row in range(num_rows)[tile]] == list(range(num_rows))
    lengths = [tile.stop - tile.start for tile in tiles]
    assert len(set(lengths[:-1])) <= 1
    assert lengths[-1] <= lengths[0] <= (longest or num_rows)
    assert len(tiles) <= -(-num_rows // (longest or num_rows))


def test_nothing_has_no_tiles():
    assert list(even_tiles(0, 5)) == []
