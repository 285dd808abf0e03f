"""Look at a pattern: `show(layout)` in Python, `python -m sparse_attention.show pattern=window tokens=1000` in a shell.

A package, so that the command finds its module `__main__` and this name stays the function's.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from ..layouts import Layout
from ..pictures.cost import Spread, cost_table
from ..pictures.file import check_path
from ..pictures.heads import head_groups
from ..pictures.terminal import characters_for, drawing, table_lines

__all__ = ["show"]


def show(pattern: Layout, path: str | Path | None = None, *, title: str | None = None) -> None:
    """Draw a pattern to the terminal with a table of its cost, and as a figure to `path` where one is given.

    pattern: any layout whose edges are known: of a content-based one, what its `resolve(q, k)` returns. Each different
             pattern of a layout per head gets a panel of its own.
    path:    a file that ends in .png, .svg or .pdf. The figure shows every pair up to 256 tokens, and beyond that the
             share of pairs that is attended; histograms of degrees and of keys a query; and the table.
    title:   what stands above both; what kind of layout it is, where it is not given.

    Time and memory grow with the edges of the layout, never with the square of the length.

    Raises ValueError for a pattern without edges to draw, and for a path that no figure can be written to.
    """
    if not isinstance(pattern, Layout):
        raise ValueError(f"pattern: expected a layout, such as an IndexList, got {type(pattern).__name__}")
    if pattern.depends_on_inputs:
        raise ValueError(
            f"pattern: which keys a {type(pattern).__name__} lists depends on queries and keys; "
            "show what its resolve(q, k) returns"
        )
    if path is not None:
        check_path(Path(path), "path")
    pattern = pattern.to("cpu")
    groups = head_groups(pattern)
    spread = Spread.of(groups)
    table = cost_table(pattern, spread)
    title = f"{pattern.kind}, {pattern.num_tokens:,} queries, {pattern.num_keys:,} keys" if title is None else title
    width = shutil.get_terminal_size().columns
    lines = [title, "", *drawing(groups, width, characters_for(sys.stdout.encoding)), "", *table_lines(table)]
    print("\n".join(lines))
    if path is not None:
        from ..pictures.figure import draw

        draw(groups, spread, table, title, Path(path))
