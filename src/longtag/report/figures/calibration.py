"""The reliability diagram: whether predictions are right as often as they are sure."""

import numpy as np

from longtag.report.figures.picture import Picture
from longtag.report.runs import Run
from longtag.report.style import COLOURS, INK, MUTED, new_figure, shares


def reliability_diagram(run: Run) -> Picture | None:
    """Accuracy by confidence above, how many tokens have it below."""
    if run.evaluation is None:
        return None
    bins = run.evaluation["calibration"]
    counts, sure, right = (np.array(bins[name], dtype=float) for name in ("count", "confidence", "accuracy"))
    if not counts.sum():
        return None
    error = bins["expected_calibration_error"]
    figure = new_figure(4.8, 4.9)
    diagram, histogram = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = counts > 0
    diagram.plot([0, 1], [0, 1], color=MUTED, linestyle=(0, (3, 2)), linewidth=1.2)
    diagram.vlines(sure[filled], sure[filled], right[filled], color=COLOURS[1], linewidth=2.5, alpha=0.6)
    diagram.plot(sure[filled], right[filled], color=COLOURS[0], marker="o")
    diagram.set_title(f"expected calibration error {error:.3f}", loc="left")
    diagram.set_ylabel("accuracy")
    edges = np.linspace(0, 1, len(counts) + 1)
    histogram.bar(edges[:-1], 100 * counts / counts.sum(), np.diff(edges), align="edge", color=COLOURS[0], alpha=0.75)
    histogram.set(xlabel="confidence: the probability given to the predicted class", ylabel="tokens, %")
    for axes in (diagram, histogram):
        axes.grid(True, color=INK, alpha=0.12)
    shares(diagram, "y")
    shares(diagram, "x")
    return Picture(
        "calibration",
        "Calibration",
        f"Accuracy against confidence in {len(counts)} bins; on the dashed line predictions are right as often as they "
        "are sure, below it they are too sure. The expected calibration error is the mean length of the vertical bars, "
        "weighted by tokens.",
        figure,
    )
