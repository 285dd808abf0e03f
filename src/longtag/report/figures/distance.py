"""How far a pattern carries information: accuracy of tokens by the distance of what their label depends on."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from matplotlib.ticker import FixedLocator, StrMethodFormatter

from longtag.report.figures.picture import Picture
from longtag.report.groups import Group
from longtag.report.runs import Run
from longtag.report.style import INK, Look, legend, new_figure, number, shares

MOST_TICKS = 11
ASIDE = 0.08
"""Of the way from one distance to the next: how far apart lines have their points, which would hide one another."""

KEY = re.compile(r"(test|val)/accuracy_at_distance/(\d+)$")


def accuracy_by_distance(groups: Sequence[Group], look_of: Mapping[str, Look]) -> Picture | None:
    """A line for each group over the upper bounds of ranges of distance; of the test, else of the validation."""
    split = next((split for split in ("test", "val") if any(_distances(group.runs, split) for group in groups)), None)
    if split is None:
        return None
    figure = new_figure(7.6, 3.7)
    axes = figure.subplots()
    drawn = [group for group in groups if _distances(group.runs, split)]
    bounds = sorted({distance for group in drawn for distance in _distances(group.runs, split)})
    step = min((far / near for near, far in pairwise(bounds)), default=1.0) ** min(ASIDE, 0.6 / len(drawn))
    for place, group in enumerate(drawn):
        points = [(distance, group.spread(_figure(split, distance))) for distance in _distances(group.runs, split)]
        known = [(distance, spread) for distance, spread in points if spread]
        if not known:
            continue
        look, aside = look_of[group.variant], step ** (place - (len(drawn) - 1) / 2)
        distances = [distance * aside for distance, _ in known]
        axes.plot(
            distances,
            [spread.mean for _, spread in known],
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            label=group.variant,
        )
        low, high = [spread.low for _, spread in known], [spread.high for _, spread in known]
        axes.fill_between(distances, low, high, color=look.colour, alpha=0.18, linewidth=0)
    chance = _chance([run for group in drawn for run in group.runs])
    if chance is not None:
        axes.axhline(chance, color=INK, linestyle=(0, (2, 2)), linewidth=1, label=f"chance, {number(round(chance, 3))}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(bounds[:: -(-len(bounds) // MOST_TICKS)]))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    shares(axes, "y")
    axes.set(
        xlabel="distance, up to this many tokens", ylabel="test accuracy" if split == "test" else "validation accuracy"
    )
    axes.grid(True)
    legend(figure, axes)
    return Picture(
        "accuracy_by_distance",
        "Accuracy against distance",
        "Accuracy of tokens whose label depends on another token, by the distance of the two; the band reaches over "
        "the seeds. Points of one distance stand side by side, so that none hides another. Chance is the share of the "
        "most frequent label.",
        figure,
    )


def _distances(runs: Sequence[Run], split: str) -> list[int]:
    found = (KEY.match(key) for run in runs for key in [*run.summary, *run.series])
    return sorted({int(match[2]) for match in found if match and match[1] == split})


def _figure(split: str, distance: int):
    return lambda run: run.last(f"{split}/accuracy_at_distance/{distance}")


def _chance(runs: Sequence[Run]) -> float | None:
    """What always answering the most frequent label would get: as the run says itself, or in its test."""
    for run in runs:
        if isinstance(run.summary.get("chance"), float):
            return run.summary["chance"]
        if run.evaluation and sum(run.evaluation["labelled"]):
            return max(run.evaluation["labelled"]) / sum(run.evaluation["labelled"])
    return None
