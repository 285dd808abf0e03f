"""A pattern as a figure: where its edges lie, how degrees and keys per query are spread, and what it costs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from ..layouts import Layout
from .cells import pairs_by_cell, share_by_cell
from .cost import Spread
from .file import write_whole
from .heads import HeadGroup, heads_in_words

NO_DATE = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
MOST_PANELS = 6
MOST_CELLS = 256
ONCE, TWICE = "#0072b2", "#d55e00"
"""Blue and vermilion of the palette of Okabe and Ito, which the colour-blind can tell apart."""


def draw(groups: Sequence[HeadGroup], spread: Spread, table: Sequence[Sequence[str]], title: str, path: Path) -> None:
    """Everything about a pattern on one page, in a file of the kind that its name says."""
    save(page(groups, spread, table, title), path, dpi=150)


def page(groups: Sequence[HeadGroup], spread: Spread, table: Sequence[Sequence[str]], title: str) -> Figure:
    """Patterns to the left, histograms and the table to the right."""
    figure = Figure(figsize=(12, 6.6), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, 150)), fontsize=11, parse_math=False)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.05, 1), wspace=0.03)[0]
    draw_patterns(left, groups)
    degrees, keys, cost = right.subplots(3, 1, height_ratios=(1, 1, 1.25))
    draw_histogram(degrees, spread.degrees, xlabel="degree: queries that see a key", ylabel="keys")
    draw_histogram(keys, spread.keys, xlabel="keys that a query sees", ylabel="queries")
    _draw_table(cost, table)
    return figure


def save(figure: Figure, path: Path, dpi: int) -> None:
    """The same bytes for the same pattern: without the date, and in an SVG with names that are not drawn by lot."""
    content = BytesIO()
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(content, dpi=dpi, format=path.suffix[1:], metadata=NO_DATE[path.suffix])
    write_whole(path, content.getvalue())


def draw_patterns(figure: Figure | SubFigure, groups: Sequence[HeadGroup]) -> None:
    """A panel for each of the first patterns: every pair of short sequences, else a map of the share attended."""
    shown = groups[:MOST_PANELS]
    columns = 1 if len(shown) == 1 else 2 if len(shown) <= 4 else 3
    rows = -(-len(shown) // columns)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    exact = max(shown[0].layout.num_tokens, shown[0].layout.num_keys) <= MOST_CELLS
    (_draw_dots if exact else _draw_maps)(figure, panels, [group.layout for group in shown])
    for place, (panel, group) in enumerate(zip(panels, shown, strict=False)):
        panel.set_title(heads_in_words(group.heads) if group.heads else "", fontsize=10)
        _label_positions(panel, group.layout, small=columns > 1)
        if place % columns == 0:
            panel.set_ylabel("query position, tokens")
        if place + columns >= len(shown):
            panel.set_xlabel("key position, tokens")
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    if len(groups) > len(shown):
        figure.supxlabel(f"{len(shown)} of {len(groups)} different patterns; the others are left out", fontsize=9)


def _draw_dots(figure: Figure | SubFigure, panels: Sequence[Axes], layouts: Sequence[Layout]) -> None:
    colours = ListedColormap(["white", ONCE, TWICE])
    twice = False
    for panel, layout in zip(panels, layouts, strict=False):
        pairs = pairs_by_cell(layout, 1, 1).clamp(max=2)
        twice = twice or bool((pairs == 2).any())
        panel.imshow(pairs.numpy(), cmap=colours, vmin=0, vmax=2, interpolation="nearest", aspect=_aspect(layout))
        if max(pairs.shape) <= 32:
            panel.set_xticks([key - 0.5 for key in range(pairs.shape[1] + 1)], minor=True)
            panel.set_yticks([query - 0.5 for query in range(pairs.shape[0] + 1)], minor=True)
            panel.grid(which="minor", color="#d8d8d8", linewidth=0.8)
            panel.tick_params(which="minor", length=0)
    if twice:
        patches = [Patch(color=ONCE, label="listed once"), Patch(color=TWICE, label="listed twice or more")]
        figure.legend(handles=patches, loc="outside lower center", ncols=2, fontsize=9, frameon=False)


def _draw_maps(figure: Figure | SubFigure, panels: Sequence[Axes], layouts: Sequence[Layout]) -> None:
    query_cell, key_cell = (-(-length // MOST_CELLS) for length in (layouts[0].num_tokens, layouts[0].num_keys))
    shares = [100 * share_by_cell(layout, query_cell, key_cell) for layout in layouts]
    norm, image = _norm(torch.cat([share.flatten() for share in shares])), None
    for panel, share, layout in zip(panels, shares, layouts, strict=False):
        extent = (-0.5, share.shape[1] * key_cell - 0.5, share.shape[0] * query_cell - 0.5, -0.5)
        seen = share.where(share > 0, torch.nan).numpy()
        image = panel.imshow(
            seen, cmap="viridis_r", norm=norm, extent=extent, interpolation="nearest", aspect=_aspect(layout)
        )
        panel.set(xlim=(-0.5, layout.num_keys - 0.5), ylim=(layout.num_tokens - 0.5, -0.5))
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), location="bottom", shrink=0.7, aspect=40, pad=0.02)
        bar.set_label(f"% attended of the {query_cell:,} x {key_cell:,} pairs of a cell; white: none", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        if isinstance(norm, LogNorm):
            few_decades = float(norm.vmax or 1) < 300 * float(norm.vmin or 1)
            bar.set_ticks(LogLocator(subs=(1, 2, 5) if few_decades else (1,)))  # pyright: ignore[reportArgumentType]
            bar.formatter = StrMethodFormatter("{x:g}")
            bar.minorticks_off()


def _norm(shares: Tensor) -> Normalize:
    """Logarithmic where the densest cell holds many times what the emptiest does."""
    seen = shares[shares > 0]
    if seen.numel() == 0:
        return Normalize(0, 1)
    low, high = float(seen.min()), float(seen.max())
    return LogNorm(low, high) if high > 16 * low else Normalize(0, high)


def _aspect(layout: Layout) -> Literal["equal", "auto"]:
    """Square cells, unless that would leave a thin strip."""
    return "equal" if 0.5 <= layout.num_tokens / layout.num_keys <= 2 else "auto"


def _label_positions(panel: Axes, layout: Layout, *, small: bool) -> None:
    panel.tick_params(labelsize=8 if small else 9)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=4 if small or layout.num_keys > 9999 else 8, integer=True))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def draw_histogram(axes: Axes, values: Tensor, *, xlabel: str, ylabel: str) -> None:
    """Bars of whole numbers, of ranges of equal width, or of ranges that double, whichever the spread asks for."""
    low, high = int(values.min()), int(values.max())
    if high - low < 40:
        counts = values.sub(low).bincount(minlength=high - low + 1)
        axes.bar(range(low, high + 1), counts.tolist(), color=ONCE)
        axes.set_xlim(low - 1.5, high + 1.5)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    elif high <= 16 * low:
        width = -(-(high - low + 1) // 40)
        counts = values.sub(low).div(width, rounding_mode="floor").bincount()
        axes.bar([low + width * bar for bar in range(len(counts))], counts.tolist(), width, align="edge", color=ONCE)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    else:
        # Bar 0 holds 0, bar 1 holds 1, bar b holds 2^(b - 1) to 2^b - 1.
        bars = torch.bucketize(values, 2 ** torch.arange(high.bit_length()), right=True)
        counts = bars.bincount(minlength=high.bit_length() + 1)
        axes.bar(range(len(counts)), counts.tolist(), color=ONCE)
        step = -(-len(counts) // 9)
        ticks = range(0, len(counts), step)
        axes.set_xticks(ticks, [f"{1 << bar >> 1:,}" for bar in ticks])
        xlabel += " (a bar reaches to the next power of 2)"
    filled = counts[counts > 0]
    if int(filled.max()) > 50 * int(filled.min()):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_table(axes: Axes, table: Sequence[Sequence[str]]) -> None:
    axes.set_axis_off()
    for row, texts in enumerate(table):
        height = 1 - (row + 0.5) / len(table)
        weight = "bold" if row == 0 else "normal"
        for column, (text, place) in enumerate(zip(texts, (0.0, 0.52, 0.78, 1.0), strict=True)):
            align = "left" if column == 0 else "right"
            axes.text(place, height, text, ha=align, va="center", fontsize=8.5, weight=weight, transform=axes.transAxes)
