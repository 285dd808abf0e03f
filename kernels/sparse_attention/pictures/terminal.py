"""A pattern drawn with characters: braille dots where each pair has room for its own, shades of density elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from ..layouts import Layout
from .cells import pairs_by_cell, share_by_cell
from .cost import percent
from .heads import HeadGroup, heads_in_words

MOST_PANELS = 4
MOST_ROWS = 24
GAP = "  "


@dataclass(frozen=True)
class Characters:
    """shades: from no edge to the densest cell. corners and lines: of the frame. braille: whether there are dots."""

    shades: str
    corners: str
    horizontal: str
    vertical: str
    braille: bool


UNICODE = Characters(" ░▒▓█", "┌┐└┘", "─", "│", braille=True)
ASCII = Characters(" .+*#", "++++", "-", "|", braille=False)
BRAILLE_BITS = torch.tensor([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def characters_for(encoding: str | None) -> Characters:
    """The finer set where an output with this encoding can show all of it."""
    try:
        "".join((UNICODE.shades, UNICODE.corners, UNICODE.horizontal, UNICODE.vertical, chr(0x28FF))).encode(
            encoding or "ascii"
        )
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def drawing(groups: Sequence[HeadGroup], width: int, characters: Characters) -> list[str]:
    """Lines of at most `width` characters: a panel for each of the first patterns, two side by side, and a legend."""
    shown = groups[:MOST_PANELS]
    layout = shown[0].layout
    margin = len(f"{layout.num_tokens - 1:,}") + 2
    in_a_row = 1 if len(shown) == 1 or width < 2 * (margin + 16) + len(GAP) else 2
    columns = max(8, (width - (in_a_row - 1) * len(GAP)) // in_a_row - margin - 1)
    rows = min(MOST_ROWS, max(4, columns // 2))
    columns = min(columns, 2 * rows)
    if layout.num_tokens <= rows and 2 * layout.num_keys <= columns:
        pictures = [_filled(group.layout, characters) for group in shown]
        legend = "each cell is one pair of a query and a key"
    elif characters.braille and layout.num_tokens <= 4 * rows and layout.num_keys <= 2 * columns:
        pictures = [_braille(group.layout) for group in shown]
        legend = "each dot is one pair of a query and a key"
    else:
        pictures, legend = _shaded([group.layout for group in shown], rows, columns, characters)
    panels = [_framed(picture, group, margin, characters) for picture, group in zip(pictures, shown, strict=True)]
    lines = []
    for start in range(0, len(panels), in_a_row):
        lines += [GAP.join(parts).rstrip() for parts in zip_longest(*panels[start : start + in_a_row], fillvalue="")]
    if len(groups) > len(shown):
        lines.append(f"{len(shown)} of {len(groups)} different patterns; the others are left out")
    return [*lines, *_wrapped(legend, width)]


def _filled(layout: Layout, characters: Characters) -> list[str]:
    """Two characters a pair, since one is about twice as high as wide."""
    pairs = pairs_by_cell(layout, 1, 1) > 0
    empty, full = 2 * characters.shades[0], 2 * characters.shades[-1]
    return ["".join(full if pair else empty for pair in row) for row in pairs.tolist()]


def _braille(layout: Layout) -> list[str]:
    pairs = pairs_by_cell(layout, 1, 1) > 0
    high, wide = -(-pairs.shape[0] // 4), -(-pairs.shape[1] // 2)
    padded = torch.zeros(4 * high, 2 * wide, dtype=torch.int64)
    padded[: pairs.shape[0], : pairs.shape[1]] = pairs
    codes = (padded.view(high, 4, wide, 2) * BRAILLE_BITS[:, None, :]).sum(dim=(1, 3))
    return ["".join(chr(0x2800 + code) for code in row) for row in codes.tolist()]


def _shaded(layouts: Sequence[Layout], rows: int, columns: int, characters: Characters) -> tuple[list[list[str]], str]:
    query_cell, key_cell = -(-layouts[0].num_tokens // rows), -(-layouts[0].num_keys // columns)
    shares = [share_by_cell(layout, query_cell, key_cell) for layout in layouts]
    bounds = _bounds(torch.cat([share.flatten() for share in shares]), len(characters.shades) - 1)
    shades = characters.shades[0] + characters.shades[len(characters.shades) - len(bounds) :]
    pictures = []
    for share in shares:
        levels = torch.bucketize(share, bounds[:-1]) + 1
        pictures.append(["".join(shades[level] for level in row) for row in levels.where(share > 0, 0).tolist()])
    scale = "   ".join(
        f"{shade} up to {percent(bound)}" for shade, bound in zip(shades[1:], bounds.tolist(), strict=True)
    )
    size = f"{query_cell:,} {_plural('query', query_cell)} x {key_cell:,} {_plural('key', key_cell)}"
    return pictures, f"one cell is {size}; share of its pairs:   {scale or 'no edge at all'}"


def _bounds(shares: Tensor, levels: int) -> Tensor:
    """Upper bounds of each shade: in even steps from 0, or of the logarithm where shares differ much."""
    seen = shares[shares > 0]
    if seen.numel() == 0:
        return seen
    low, high = float(seen.min()), float(seen.max())
    if high < 1.001 * low:
        return torch.tensor([high], dtype=torch.float64)
    if high < 16 * low:
        bounds = torch.linspace(0, high, levels + 1, dtype=torch.float64)[1:]
    else:
        bounds = torch.logspace(math.log10(low), math.log10(high), levels + 1, dtype=torch.float64)[1:]
    bounds[-1] = high
    return bounds


def _framed(picture: Sequence[str], group: HeadGroup, margin: int, characters: Characters) -> list[str]:
    layout, wide = group.layout, len(picture[0])
    last_query, last_key = f"{layout.num_tokens - 1:,}", f"{layout.num_keys - 1:,}"
    top_left, top_right, bottom_left, bottom_right = characters.corners
    title = [f"{'':{margin}}{heads_in_words(group.heads)}"[: margin + wide + 1]] if group.heads else []
    indent = " " * (margin - 1)
    keys = f"0{'key' if wide >= len(last_key) + 7 else '':^{max(1, wide - 1 - len(last_key))}}{last_key}"
    lines = [
        *title,
        f"{indent} {keys}",
        f"{indent}{top_left}{characters.horizontal * wide}{top_right}",
        *(f"{indent}{characters.vertical}{row}{characters.vertical}" for row in picture),
        f"{indent}{bottom_left}{characters.horizontal * wide}{bottom_right}",
    ]
    first, last = len(title) + 2, len(lines) - 2
    lines[first] = f"{'0':>{margin - 1}}{lines[first][margin - 1 :]}"
    if last > first:
        lines[last] = f"{last_query:>{margin - 1}}{lines[last][margin - 1 :]}"
    if last > first + 1 and margin > len("query"):
        middle = (first + last) // 2
        lines[middle] = f"{'query':>{margin - 1}}{lines[middle][margin - 1 :]}"
    length = max(map(len, lines))
    return [f"{line:{length}}" for line in lines]


def _plural(name: str, count: int) -> str:
    return name if count == 1 else {"query": "queries", "key": "keys"}[name]


def _wrapped(text: str, width: int) -> list[str]:
    """Broken only where three blanks part entries, so that a shade stays with its bound."""
    lines = [""]
    for part in text.split("   "):
        joined = f"{lines[-1]}   {part}".strip() if lines[-1] else part
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned, the first to the left and figures to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        GAP.join(f"{text:{'<' if column == 0 else '>'}{widths[column]}}" for column, text in enumerate(row)).rstrip()
        for row in rows
    ]
