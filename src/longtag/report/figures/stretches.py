"""Example stretches of the test: labels and predictions as coloured tracks, with the confidence below."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import SubFigure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from longtag.report.figures.picture import Picture
from longtag.report.groups import shortened
from longtag.report.runs import Run
from longtag.report.style import COLOURS, MUTED, new_figure, number

CLASS_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442")
WRONG = to_rgb("#d55e00")
ROWS = ("label", "prediction", "error")


def example_stretches(run: Run) -> Picture | None:
    """Four rows for each stretch: label, prediction, error, confidence."""
    if run.evaluation is None or not run.evaluation["stretches"]:
        return None
    stretches = run.evaluation["stretches"]
    names = run.evaluation["class_names"]
    tracks = [np.stack([_decoded(stretch["labels"]), _decoded(stretch["predictions"])]) for stretch in stretches]
    shown = _most_frequent(tracks)
    figure = new_figure(9.4, 0.6 + 1.9 * len(stretches))
    parts = figure.subfigures(len(stretches), 1, squeeze=False)[:, 0]
    for part, stretch, track in zip(parts, stretches, tracks, strict=True):
        _draw(part, stretch, track, shown)
    handles = [Patch(color=CLASS_COLOURS[place], label=shortened(names[label])) for place, label in enumerate(shown)]
    if len({int(label) for track in tracks for label in np.unique(track) if label >= 0}) > len(shown):
        handles.append(Patch(color=MUTED, label="other classes"))
    handles.append(Patch(color=WRONG, label="error"))
    figure.legend(handles=handles, loc="outside right upper")
    return Picture(
        "example_stretches",
        "Example stretches",
        "Labels and predictions along stretches of test crops, with the confidence of the predictions; blank where a "
        "token has no label.",
        figure,
    )


def _draw(figure: SubFigure, stretch: dict[str, Any], track: np.ndarray, shown: Sequence[int]) -> None:
    start, length = stretch["start"], track.shape[1]
    tracks, confidence = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    _draw_tracks(tracks, track, shown, start)
    tracks.set_title(
        f"{stretch['why']}: {100 * stretch['accuracy']:.1f} % right, test crop {stretch['crop']}", loc="left"
    )
    cells = np.linspace(start, start + length, len(stretch["confidence"]) + 1)
    confidence.stairs(stretch["confidence"], cells, color=COLOURS[0], fill=True, alpha=0.5)
    confidence.set_ylim(0, 1.05)
    confidence.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    confidence.set_ylabel("confidence", rotation=0, ha="right", va="center")
    confidence.set_xlabel("position in the crop, tokens")
    confidence.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    confidence.xaxis.set_major_formatter(FuncFormatter(number))


def _draw_tracks(axes: Axes, track: np.ndarray, shown: Sequence[int], start: int) -> None:
    length = track.shape[1]
    colours = np.zeros((3, length, 4))
    for row, classes in enumerate(track):
        colours[row][classes >= 0] = (*to_rgb(MUTED), 1)
        for place, label in enumerate(shown):
            colours[row][classes == label] = (*to_rgb(CLASS_COLOURS[place]), 1)
    labelled = track[0] >= 0
    colours[2][labelled & (track[0] != track[1])] = (*WRONG, 1)
    for row, classes in enumerate(colours):
        axes.imshow(
            classes[None],
            extent=(start, start + length, row + 0.88, row + 0.12),
            aspect="auto",
            interpolation="nearest",
        )
    axes.set(xlim=(start, start + length), ylim=(3, 0))
    axes.set_yticks([0.5, 1.5, 2.5], ROWS)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _decoded(runs: Sequence[Sequence[int]]) -> np.ndarray:
    classes, counts = np.array(runs).T
    return np.repeat(classes, counts)


def _most_frequent(tracks: Sequence[np.ndarray]) -> list[int]:
    """As many classes as there are colours, in the order of their labels."""
    found = np.concatenate([track.ravel() for track in tracks])
    classes, counts = np.unique(found[found >= 0], return_counts=True)
    return sorted(classes[np.argsort(-counts, kind="stable")[: len(CLASS_COLOURS)]].tolist())
