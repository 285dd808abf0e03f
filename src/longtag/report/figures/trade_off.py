"""What quality costs: against peak memory and against speed."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes

from longtag.report.figures.picture import Picture
from longtag.report.groups import Group, Quality
from longtag.report.runs import Run
from longtag.report.style import Look, legend, new_figure, number, scale

AXES: tuple[tuple[str, Callable[[Run], float | None]], ...] = (
    ("peak memory, GiB  (less is better)", lambda run: run.peak_memory),
    ("tokens per second  (more is better)", lambda run: run.tokens_per_second),
)

LEAST_SPAN = 0.05
"""Of the costs themselves: what differs by less is drawn as close together as it is, not from edge to edge."""


def trade_off(groups: Sequence[Group], quality: Quality, look_of: Mapping[str, Look]) -> Picture | None:
    """A point for each group, in a panel for each cost that is known."""
    drawn = [(label, cost) for label, cost in AXES if any(_is_known(group, quality, cost) for group in groups)]
    if not drawn:
        return None
    figure = new_figure(4.2 * len(drawn) + 2, 3.7)
    panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    ranked = sorted(groups, key=lambda group: _rank(group, quality))
    for axes, (label, cost) in zip(panels, drawn, strict=True):
        for group in ranked:
            _draw(axes, group, quality, cost, look_of[group.variant])
        costs = [spread.mean for group in ranked if (spread := group.spread(cost))]
        scale(axes, "x", costs, spans=8)
        axes.margins(0.1)
        _widen(axes)
        axes.set_xlabel(label)
        axes.grid(True)
    better = "more" if quality.larger_is_better else "less"
    panels[0].set_ylabel(f"{quality.name}  ({better} is better)")
    panels[0].yaxis.set_major_formatter(number)
    legend(figure, *panels)
    return Picture(
        "trade_off",
        "Quality against memory and speed",
        "Filled: on the Pareto front, where no other is at least as good in quality, memory and speed and better in "
        "one of them. Hollow: beaten by another. Bars reach over the seeds. Peak memory is the highest of all steps, "
        "speed that of the median step.",
        figure,
    )


def _draw(axes: Axes, group: Group, quality: Quality, cost: Callable[[Run], float | None], look: Look) -> None:
    good, price = group.spread(quality.of), group.spread(cost)
    if good is None or price is None:
        return
    drawn = axes.errorbar(
        price.mean,
        good.mean,
        xerr=[[price.mean - price.low], [price.high - price.mean]],
        yerr=[[good.mean - good.low], [good.high - good.mean]],
        fmt=look.marker,
        color=look.colour,
        markerfacecolor=look.colour if group.on_front else "none",
        markeredgewidth=1.5,
        markersize=8,
        elinewidth=0.9,
    )
    # Of the marker alone: in a legend, bars would cross out what is hollow.
    drawn.lines[0].set_label(group.variant)


def _widen(axes: Axes) -> None:
    left, right = axes.get_xlim()
    missing = LEAST_SPAN * right - (right - left)
    if missing > 0:
        axes.set_xlim(left - missing / 2, right + missing / 2)


def _is_known(group: Group, quality: Quality, cost: Callable[[Run], float | None]) -> bool:
    return group.spread(quality.of) is not None and group.spread(cost) is not None


def _rank(group: Group, quality: Quality) -> float:
    """The best first, as a reader meets them from the top of the axes down."""
    good = group.spread(quality.of)
    return float("inf") if good is None else -good.mean if quality.larger_is_better else good.mean
