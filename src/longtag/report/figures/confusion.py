"""The confusion matrix of a test: which labels are taken for which."""

import numpy as np

from longtag.report.figures.classes import draw_shares
from longtag.report.figures.picture import Picture
from longtag.report.groups import shortened
from longtag.report.runs import Run
from longtag.report.style import new_figure, number

MOST_NUMBERED = 24


def confusion_matrix(run: Run) -> Picture | None:
    """Each row adds up to 1; classes that occur neither as a label nor as a prediction are left out."""
    if run.evaluation is None or run.evaluation["confusion"] is None:
        return None
    counts = np.array(run.evaluation["confusion"], dtype=float)
    occurs = np.flatnonzero(counts.sum(0) + counts.sum(1))
    if not len(occurs):
        return None
    counts = counts[np.ix_(occurs, occurs)]
    totals = counts.sum(1)
    table = np.divide(counts, totals[:, None], out=np.full_like(counts, np.nan), where=totals[:, None] > 0)
    names = [shortened(run.evaluation["class_names"][place]) for place in occurs]
    side = 0.42 * min(len(occurs), MOST_NUMBERED)
    figure = new_figure(3.4 + 1.15 * side, 2.2 + side)
    axes = figure.subplots()
    if len(occurs) <= MOST_NUMBERED:
        draw_shares(axes, table, digits=0 if len(occurs) > 8 else 1, percent=True)
        labels = [f"{name}  ({number(total)})" for name, total in zip(names, totals, strict=True)]
        axes.set_yticks(range(len(names)), labels)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    else:
        image = axes.imshow(table, cmap="cividis_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        figure.colorbar(image, ax=axes, label="share of the label's tokens")
    axes.set(xlabel="prediction", ylabel="label  (tokens)" if len(occurs) <= MOST_NUMBERED else "label")
    return Picture(
        "confusion_matrix",
        "Confusion matrix",
        "Per cent of the tokens of each label that were given each prediction; a row adds up to 100.",
        figure,
    )
