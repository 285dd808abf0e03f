"""A figure over the steps of several runs as one line with a band, short enough to draw."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from longtag.report.runs import Run, Series

MOST_POINTS = 120


@dataclass(frozen=True)
class Curve:
    """(n,) each: steps, and mean, lowest and highest value over the runs that have one there."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(runs: Sequence[Run], key: str, *, of_cell: Literal["mean", "max"] = "mean") -> Curve | None:
    """None where no run has a finite value.

    of_cell: what stands for neighbouring steps where there are more of them than 120.
    """
    series = [run.series[key] for run in runs if key in run.series]
    kept = [_finite(one) for one in series]
    kept = [one for one in kept if len(one.steps)]
    if not kept:
        return None
    steps = np.unique(np.concatenate([one.steps for one in kept]))
    width = -(-len(steps) // MOST_POINTS)
    num_cells = -(-len(steps) // width)
    table = np.full((len(kept), num_cells), np.nan)
    for row, one in zip(table, kept, strict=True):
        cells = np.searchsorted(steps, one.steps) // width
        if of_cell == "max":
            highest = np.full(num_cells, -np.inf)
            np.maximum.at(highest, cells, one.values)
            row[:] = np.where(np.isinf(highest), np.nan, highest)
        else:
            count = np.bincount(cells, minlength=num_cells)
            total = np.bincount(cells, one.values, minlength=num_cells)
            row[count > 0] = total[count > 0] / count[count > 0]
    middle = np.array([part.mean() for part in np.split(steps, range(width, len(steps), width))])
    return Curve(middle, np.nanmean(table, axis=0), np.nanmin(table, axis=0), np.nanmax(table, axis=0))


def _finite(series: Series) -> Series:
    kept = np.isfinite(series.values)
    return Series(series.steps[kept], series.values[kept])
