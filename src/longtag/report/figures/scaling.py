"""What a step costs as crops get longer: its time and its memory against tokens, and with which power they grow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from longtag.report.figures.memory import name_of_memory
from longtag.report.figures.picture import Picture
from longtag.report.groups import Group, Spread, told
from longtag.report.runs import Run
from longtag.report.style import MUTED, Look, legend, looks, new_figure, number, scale

TOKENS = "tokens"

MOST_TICKS = 8

Points = list[tuple[int, Spread]]
"""Tokens of a crop, ascending, and what was measured there."""


@dataclass(frozen=True)
class _Cost:
    """word: in the legend. label: of the axis."""

    word: str
    label: str
    of: Callable[[Run], float | None]


def step_against_tokens(lines: Mapping[str, Sequence[Group]], task: str) -> Picture | None:
    """The lines of one task; None where no two lengths of a line were measured.

    lines: of all tasks, by name, so that a line looks alike in all of them.
    """
    look_of = looks([*lines])
    members = {name: [group for group in alike if group.task == task] for name, alike in lines.items()}
    keys = {run.memory_key for alike in members.values() for group in alike for run in group.runs if run.memory_key}
    costs = (
        _Cost("time", "step time, ms", lambda run: run.step_ms),
        _Cost("memory", name_of_memory(keys), lambda run: run.peak_memory),
    )
    points = {cost: {name: _points(alike, cost) for name, alike in members.items()} for cost in costs}
    drawn = [cost for cost in costs if any(len(known) > 1 for known in points[cost].values())]
    if not drawn:
        return None
    figure = new_figure(3.9 * len(drawn) + 2.4, 3.7)
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    powers = {name: _powers({cost.word: points[cost][name] for cost in costs}) for name in members}
    for axes, cost in zip(panels, drawn, strict=True):
        for name in members:
            _draw(axes, points[cost][name], look_of[name], "\n".join([name, *powers[name]]))
        _finish(axes, [point for known in points[cost].values() for point in known])
        axes.set(xlabel="tokens of a crop", ylabel=cost.label)
    legend(figure, *panels)
    return Picture(
        "step_against_tokens",
        "Step time and memory against tokens",
        "The median step and the highest peak of all steps, both axes logarithmic; bars reach over the seeds. The "
        "exponent is that of the power of tokens which fits a line best: 0.9 to 1.1 is linear, 2 is quadratic; the "
        "dotted line shows the slope of 1. What does not depend on tokens - starting kernels, weights, on a CPU also "
        "the libraries of the process - flattens short lengths and lowers the exponent. "
        + "; ".join(f"{name}: {', '.join(found)}" for name, found in powers.items() if found)
        + ".",
        figure,
    )


def lines_over_tokens(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups that differ in their length alone, by the other options in words; none where length does not vary."""
    alike: dict[tuple[tuple[str, str], ...], list[Group]] = {}
    for group in groups:
        if TOKENS in group.options:
            others = [(name, value) for name, value in group.options.items() if name != TOKENS]
            alike.setdefault(tuple(others), []).append(group)
    names = [told(dict(others)) or members[0].pattern for others, members in alike.items()]
    # Long values that differ in their middle alone.
    names = [
        name if names.count(name) == 1 else f"{name} ({members[0].runs[0].name})"
        for name, members in zip(names, alike.values(), strict=True)
    ]
    return dict(zip(names, alike.values(), strict=True))


def exponent(tokens: Sequence[float], figures: Sequence[float]) -> float:
    """The slope of the straight line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(tokens), np.log(figures), 1)[0])


def _points(groups: Sequence[Group], cost: _Cost) -> Points:
    known = [(int(group.options[TOKENS]), spread) for group in groups if (spread := group.spread(cost.of))]
    return sorted(known, key=lambda point: point[0])


def _powers(points_of: Mapping[str, Points]) -> list[str]:
    """The exponents of a line in words; none where a single length was measured."""
    found = {
        word: exponent([tokens for tokens, _ in known], [spread.mean for _, spread in known])
        for word, known in points_of.items()
        if len(known) > 1
    }
    return [f"{word} ~ tokens^{power:z.2f}" for word, power in found.items()]


def _draw(axes: Axes, known: Points, look: Look, label: str) -> None:
    if not known:
        return
    means = [spread.mean for _, spread in known]
    axes.errorbar(
        [tokens for tokens, _ in known],
        means,
        yerr=[[spread.mean - spread.low for _, spread in known], [spread.high - spread.mean for _, spread in known]],
        color=look.colour,
        marker=look.marker,
        linestyle=look.dash,
        elinewidth=0.9,
        label=label,
    )


def _finish(axes: Axes, points: Points) -> None:
    """Logarithmic axes, and the slope of a cost that is linear, through the middle of all points."""
    tokens = np.array([length for length, _ in points], dtype=float)
    figures = np.array([spread.mean for _, spread in points])
    scale(axes, "y", figures, spans=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(tokens)))
    axes.xaxis.set_major_formatter(FuncFormatter(number))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(0.06)
    limits = axes.get_xlim(), axes.get_ylim()
    middle = np.exp(np.log(figures).mean() - np.log(tokens).mean())
    ends = np.array(limits[0])
    axes.plot(ends, middle * ends, color=MUTED, linestyle=(0, (1, 2)), linewidth=1, zorder=1, label="linear in tokens")
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.grid(True)


def _apart(tokens: np.ndarray) -> list[float]:
    """The lengths that were measured, less those whose ticks would run into one another."""
    ticks: list[float] = []
    least = (tokens.max() / tokens.min()) ** (1 / MOST_TICKS)
    for length in np.unique(tokens):
        if not ticks or length >= ticks[-1] * least:
            ticks.append(float(length))
    return ticks
