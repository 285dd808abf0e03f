"""Learning curves: the loss of training and the figures of validation over the steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from longtag.report.curves import Curve, curve
from longtag.report.figures.picture import Picture
from longtag.report.groups import Group, in_words
from longtag.report.runs import Run
from longtag.report.style import COLOURS, DASHES, Look, legend, new_figure, scale

FEW_POINTS = 30
STEPS = "optimizer step"
LOSSES = ("train/loss", "val/loss")
SCORES = ("val/accuracy", "val/f1_macro", "val/mcc")


def learning_curves(groups: Sequence[Group], monitor: str, look_of: Mapping[str, Look]) -> Picture | None:
    """Training loss, and the validation figure that chooses the best checkpoint, of every group."""
    keys = [key for key in ("train/loss", monitor) if any(curve(group.runs, key) for group in groups)]
    if not keys:
        return None
    figure = new_figure(4.2 * len(keys) + 2, 3.6)
    panels = figure.subplots(1, len(keys), squeeze=False)[0]
    for axes, key in zip(panels, keys, strict=True):
        lines = [(group.variant, curve(group.runs, key)) for group in groups]
        draw_lines(axes, [(name, line, look_of[name]) for name, line in lines if line])
        axes.set(xlabel=STEPS, ylabel=in_words(key))
    legend(figure, *panels)
    return Picture(
        "learning_curves",
        "Learning curves",
        "The line is the mean over seeds, the band reaches from the lowest to the highest. Neighbouring steps are "
        "averaged where there are more than can be drawn.",
        figure,
    )


def learning_curve(run: Run) -> Picture | None:
    """Losses on the left, scores of the validation on the right."""
    panels_of = [[key for key in keys if curve([run], key)] for keys in (LOSSES, SCORES)]
    panels_of = [keys for keys in panels_of if keys]
    if not panels_of:
        return None
    figure = new_figure(4.6 * len(panels_of), 3.4)
    for axes, keys in zip(figure.subplots(1, len(panels_of), squeeze=False)[0], panels_of, strict=True):
        names = [in_words(key).removeprefix("validation ") if key not in LOSSES else in_words(key) for key in keys]
        marks = [Look(COLOURS[place], "osD"[place], DASHES[0]) for place in range(len(keys))]
        lines = [curve([run], key) for key in keys]
        draw_lines(axes, [(name, line, look) for name, line, look in zip(names, lines, marks, strict=True) if line])
        axes.set(xlabel=STEPS, ylabel="loss" if keys[0] in LOSSES else "validation score")
        # Above the axes, where no line can run through it.
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(keys), borderaxespad=0.2, columnspacing=1)
    return Picture("learning_curve", "Learning curve", "Loss and validation scores over the steps.", figure)


def draw_lines(axes: Axes, lines: Sequence[tuple[str, Curve, Look]]) -> None:
    """Lines with their bands; points are marked where they are few enough to be told apart."""
    for name, line, look in lines:
        few = len(line.steps) <= FEW_POINTS
        axes.plot(
            line.steps,
            line.mean,
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker if few else "",
            label=name,
        )
        if (line.high > line.low).any():
            axes.fill_between(line.steps, line.low, line.high, color=look.colour, alpha=0.18, linewidth=0)
    if lines:
        scale(axes, "y", np.concatenate([line.mean for _, line, _ in lines]))
        scale(axes, "x", [0], whole=True)
    axes.grid(True)
