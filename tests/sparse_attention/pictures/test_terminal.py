"""Drawings in characters: exact where there is room, shaded elsewhere, and never wider than the terminal."""

import pytest
import torch

from sparse_attention import Dense, IndexList, Layout, patterns
from sparse_attention.pictures.heads import head_groups
from sparse_attention.pictures.terminal import ASCII, UNICODE, Characters, characters_for, drawing, table_lines
from tests.sparse_attention.block_layouts import block_layout


def drawn(layout: Layout, width: int = 80, characters: Characters = UNICODE) -> list[str]:
    return drawing(head_groups(layout), width, characters)


def inside(lines: list[str], vertical: str) -> list[str]:
    """What stands between the sides of the frame."""
    return [line.split(vertical)[1] for line in lines if line.count(vertical) == 2]


@pytest.mark.parametrize("characters", [UNICODE, ASCII])
def test_a_short_pattern_has_two_characters_a_pair(characters: Characters) -> None:
    layout = patterns.window(7, window=1)
    full, empty = 2 * characters.shades[-1], 2 * characters.shades[0]
    expected = ["".join(full if pair else empty for pair in row) for row in layout.dense_mask().tolist()]
    assert inside(drawn(layout, characters=characters), characters.vertical) == expected


def test_braille_has_one_dot_a_pair() -> None:
    layout = IndexList(torch.randint(53, (61, 3), generator=torch.Generator().manual_seed(0)), num_keys=53)
    rows = inside(drawn(layout), UNICODE.vertical)
    dots = {(0, 0): 0, (1, 0): 1, (2, 0): 2, (0, 1): 3, (1, 1): 4, (2, 1): 5, (3, 0): 6, (3, 1): 7}
    read = torch.zeros(4 * len(rows), 2 * len(rows[0]), dtype=torch.bool)
    for row, line in enumerate(rows):
        for column, character in enumerate(line):
            for (down, right), bit in dots.items():
                read[4 * row + down, 2 * column + right] = bool((ord(character) - 0x2800) >> bit & 1)
    assert torch.equal(read[:61, :53], layout.dense_mask())
    assert not read[61:].any()
    assert not read[:, 53:].any()


def test_a_long_pattern_is_shaded_by_the_share_of_pairs() -> None:
    rows = inside(drawn(Dense(10_000, causal=True)), UNICODE.vertical)
    assert len(rows) == 24
    assert rows[0][2:].isspace()
    assert set(rows[-1][:-2]) == {"█"}


def test_noise_is_not_drawn_as_structure() -> None:
    rows = inside(drawn(patterns.random(100_000)), UNICODE.vertical)
    assert set("".join(rows)) <= {"█", "▓"}


def test_global_tokens_are_seen_at_any_length() -> None:
    layout = patterns.longformer(50_000, window=2, num_global=1, layout="index_list")
    rows = inside(drawn(layout, characters=ASCII), "|")
    assert " " not in rows[0]
    assert all(row[0] != " " for row in rows)
    assert rows[12][2:20].isspace()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("characters", [UNICODE, ASCII])
def test_no_line_is_wider_than_the_terminal(width: int, characters: Characters) -> None:
    for layout in (patterns.random(90), patterns.random(99_999), block_layout(num_tokens=300, heads=5, seed=1)):
        lines = drawn(layout, width, characters)
        drawing_only = [line for line in lines if characters.vertical in line or characters.horizontal * 4 in line]
        assert max(map(len, drawing_only)) <= width
        assert max(map(len, drawn(layout, 80, characters))) <= 80


@pytest.mark.parametrize("layout", [Dense(1), Dense(1, 500), Dense(500, 1), IndexList(torch.full((200, 1), -1))])
def test_odd_shapes_and_no_edges_have_a_drawing(layout: Layout) -> None:
    lines = drawn(layout)
    assert max(map(len, lines)) <= 80
    drew_something = any(character in "█⣿⠁" for line in lines for character in line)
    assert drew_something == (layout.num_edges > 0)


def test_heads_stand_side_by_side_and_those_left_out_are_counted() -> None:
    lines = drawn(block_layout(num_tokens=300, heads=5, seed=1))
    assert [line.split() for line in lines if "head" in line] == [
        ["head", "0", "head", "1"],
        ["head", "2", "head", "3"],
    ]
    assert "4 of 5 different patterns; the others are left out" in lines


def test_ascii_is_taken_where_the_output_cannot_show_more() -> None:
    assert characters_for("utf-8") is UNICODE
    for encoding in ("ascii", "latin-1", "cp437", None, "no such encoding"):
        assert characters_for(encoding) is ASCII
    "\n".join(drawn(patterns.random(1000), characters=ASCII)).encode("ascii")


def test_columns_of_a_table_are_aligned() -> None:
    assert table_lines([("", "a"), ("name", "12")]) == ["       a", "name  12"]
