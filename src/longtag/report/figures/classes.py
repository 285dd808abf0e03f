"""F1 of every class: of several variants as a map of numbers, of one run with precision and recall."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from longtag.report.figures.picture import Picture
from longtag.report.groups import Group, shortened
from longtag.report.runs import Run
from longtag.report.style import COLOURS, INK, new_figure, number, shares, wrapped

PREFIXES = ("test/f1/", "val/f1/")


def f1_by_class(groups: Sequence[Group]) -> Picture | None:
    """A row for each variant, a column for each class."""
    prefix = next((prefix for prefix in PREFIXES if any(_classes(group.runs, prefix) for group in groups)), None)
    if prefix is None:
        return None
    rows = [group for group in groups if _classes(group.runs, prefix)]
    names = list(dict.fromkeys(name for group in rows for name in _classes(group.runs, prefix)))
    table = np.full((len(rows), len(names)), np.nan)
    for row, group in enumerate(rows):
        for column, name in enumerate(names):
            spread = group.spread(lambda run, key=prefix + name: run.last(key))
            table[row, column] = np.nan if spread is None else spread.mean
    labels = [wrapped(group.variant) for group in rows]
    lines = max(label.count("\n") + 1 for label in labels)
    figure = new_figure(3.2 + 0.55 * len(names), 1.6 + max(0.3, 0.17 * lines) * len(rows))
    axes = figure.subplots()
    draw_shares(axes, table, digits=2)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xticks(range(len(names)), list(map(shortened, names)), rotation=40, ha="right", rotation_mode="anchor")
    split = "test" if prefix == PREFIXES[0] else "validation"
    return Picture(
        "f1_by_class",
        "F1 of each class",
        f"On the {split} blocks, mean over seeds, from 0 (pale) to 1 (dark).",
        figure,
    )


def class_scores(run: Run) -> Picture | None:
    """Precision, recall and F1 of each class in the test."""
    if run.evaluation is None:
        return None
    labelled, predicted, right = (
        np.array(run.evaluation[name], dtype=float) for name in ("labelled", "predicted", "right")
    )
    occurs = np.flatnonzero(labelled + predicted > 0)
    if not len(occurs) or len(labelled) > 64:
        return None
    figure = new_figure(8.4, 1.1 + 0.3 * len(occurs))
    axes = figure.subplots()
    rows = np.arange(len(occurs))
    for name, values, marker, colour, shift in (
        ("precision", _ratio(right, predicted), "v", COLOURS[4], -0.22),
        ("F1", _ratio(2 * right, labelled + predicted), "o", INK, 0),
        ("recall", _ratio(right, labelled), "^", COLOURS[0], 0.22),
    ):
        axes.plot(values[occurs], rows + shift, linestyle="", label=name, marker=marker, color=colour, clip_on=False)
    names = run.evaluation["class_names"]
    axes.set_yticks(rows, [f"{shortened(names[place])}  ({number(labelled[place])})" for place in occurs])
    axes.set_ylim(len(occurs) - 0.5, -0.5)
    shares(axes, "x")
    axes.set(xlabel="share", ylabel="class  (labelled tokens)")
    axes.grid(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
    return Picture("class_scores", "Scores of each class", "On the test blocks, with the best checkpoint.", figure)


def draw_shares(axes: Axes, table: np.ndarray, *, digits: int, percent: bool = False) -> None:
    """Cells from pale (0) to dark (1) with their number; NaN stays blank."""
    axes.imshow(table, cmap="cividis_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for (row, column), share in np.ndenumerate(table):
        if np.isfinite(share):
            text = f"{100 * share:.{digits}f}" if percent else f"{share:.{digits}f}"
            # Not INK, which turns pale in dark mode while the cell does not.
            shade = "white" if share > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)


def _classes(runs: Sequence[Run], prefix: str) -> list[str]:
    keys = dict.fromkeys(key for run in runs for key in [*run.summary, *run.series])
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
