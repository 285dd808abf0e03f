"""What levers of memory save and what they cost: peak memory and step time side by side, against the hungriest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from longtag.report.figures.memory import PARTS, name_of_memory, name_of_part
from longtag.report.figures.picture import Picture
from longtag.report.groups import Group, Spread, group_of, told
from longtag.report.style import COLOURS, MUTED, SPLIT_COLOURS, legend, new_figure, scale, three_digits

BAR = 0.72
"""Of the height of a row."""

ROOM = 1.35
"""For what is written behind the bars, of the width of the longest."""


@dataclass(frozen=True)
class _Row:
    """place: from the top. memory: GiB. step_ms: None where it was not logged. parts: GiB of the peak, by key."""

    name: str
    place: int
    memory: Spread
    step_ms: Spread | None
    parts: dict[str, float]


@dataclass(frozen=True)
class _Block:
    """Rows that differ in their levers alone, the hungriest first, below a heading at a place of its own."""

    heading: str
    place: int
    rows: list[_Row]


def memory_presets(groups: Sequence[Group]) -> Picture | None:
    """A row of bars for each group, in a block for all that differ in options of memory alone; None without any."""
    blocks = _blocks(groups)
    rows = [row for block in blocks for row in block.rows]
    if not any(len(block.rows) > 1 for block in blocks):
        return None
    timed = any(row.step_ms for row in rows)
    figure = new_figure(9.6 if timed else 6.2, 0.3 * (rows[-1].place + 1) + 1.1)
    panels = figure.subplots(1, 2 if timed else 1, sharey=True, squeeze=False)[0]
    keys = {run.memory_key for group in groups for run in group.runs if run.memory_key}
    _draw_memory(panels[0], rows)
    panels[0].set_xlabel(name_of_memory(keys))
    if timed:
        places = [row.place for row in rows if row.step_ms]
        panels[1].barh(places, [row.step_ms.mean for row in rows if row.step_ms], height=BAR, color=MUTED)
        panels[1].set_xlabel("step time, ms")
    for block in blocks:
        _write_figures(panels[0], [(row.place, row.memory) for row in block.rows])
        if timed:
            _write_figures(panels[1], [(row.place, row.step_ms) for row in block.rows])
    _name_rows(panels[0], blocks)
    for axes in panels:
        scale(axes, "x", [0])
        axes.set_xlim(0, axes.get_xlim()[1] * ROOM)
        axes.tick_params(axis="y", length=0)
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
    legend(figure, panels[0])
    return Picture(
        "memory_presets",
        "What memory is saved, and what that costs",
        "The highest peak of all steps, with what was held then where that was logged, and the median step. "
        "Percentages are against the first row of each block, which takes the most memory.",
        figure,
    )


def _blocks(groups: Sequence[Group]) -> list[_Block]:
    alike: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in groups:
        if any(group_of(name) == "memory" for name in group.options):
            others = [(n, v) for n, v in group.options.items() if group_of(n) != "memory"]
            alike.setdefault(tuple(others), []).append(group)
    blocks, place = [], 0
    for others, members in alike.items():
        heading = told(dict(others))
        known = [(group, memory) for group in members if (memory := group.spread(lambda run: run.peak_memory))]
        known.sort(key=lambda pair: -pair[1].mean)
        if known:
            first = place + (1 if heading else 0)
            blocks.append(_Block(heading, place, [_row(*pair, first + row) for row, pair in enumerate(known)]))
            place = first + len(known)
    return blocks


def _row(group: Group, memory: Spread, place: int) -> _Row:
    name = told({name: value for name, value in group.options.items() if group_of(name) == "memory"})
    parts = {key: part.mean for key in PARTS if (part := group.spread(lambda run, key=key: run.at_peak(key)))}
    return _Row(name, place, memory, group.spread(lambda run: run.step_ms), parts)


def _draw_memory(axes: Axes, rows: Sequence[_Row]) -> None:
    """Split into its parts where every row has all of them."""
    places = [row.place for row in rows]
    if any(len(row.parts) < len(PARTS) for row in rows):
        axes.barh(places, [row.memory.mean for row in rows], height=BAR, color=COLOURS[0])
        return
    left = np.zeros(len(rows))
    for key, colour in zip(PARTS, SPLIT_COLOURS, strict=True):
        widths = np.array([row.parts[key] for row in rows])
        axes.barh(places, widths, left=left, height=BAR, color=colour, label=name_of_part(key))
        left += widths


def _write_figures(axes: Axes, figures: Sequence[tuple[int, Spread | None]]) -> None:
    """Behind each bar its figure, and how it compares with the first."""
    _, first = figures[0]
    for place, spread in figures:
        if spread is None:
            continue
        share = "" if first is None or spread is first else f"  {100 * (spread.mean / first.mean - 1):+.0f} %"
        axes.annotate(
            f"{three_digits(spread.mean)}{share}",
            (spread.mean, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )


def _name_rows(axes: Axes, blocks: Sequence[_Block]) -> None:
    named = [(row.place, row.name) for block in blocks for row in block.rows]
    headings = {block.place: block.heading for block in blocks if block.heading}
    axes.set_yticks([*headings, *(place for place, _ in named)], [*headings.values(), *(name for _, name in named)])
    for tick in axes.get_yticklabels()[: len(headings)]:
        tick.set_fontweight("bold")
    axes.set_ylim(max(place for place, _ in named) + 0.6, -0.6)
