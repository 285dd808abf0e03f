"""Memory and speed of every step."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from longtag.report.curves import curve
from longtag.report.figures.learning import STEPS, draw_lines
from longtag.report.figures.picture import Picture
from longtag.report.groups import Group
from longtag.report.runs import PEAK_MEMORY, SPEED, Run
from longtag.report.style import COLOURS, DASHES, INK, SPLIT_COLOURS, Look, legend, new_figure

PARTS = tuple(f"memory/{part}_gib" for part in ("weights", "gradients", "optimizer_states", "activations", "temporary"))
"""Of the peak, on a GPU; on a CPU the last two are not told apart from the rest of the process."""


def memory_per_step(groups: Sequence[Group], look_of: Mapping[str, Look]) -> Picture | None:
    """The peak of each step, of every group."""
    keys = [_memory_key(group.runs) for group in groups]
    lines = [
        (group.variant, curve(group.runs, key, of_cell="max")) for group, key in zip(groups, keys, strict=True) if key
    ]
    if not lines:
        return None
    figure = new_figure(7.6, 3.4)
    axes = figure.subplots()
    draw_lines(axes, [(name, line, look_of[name]) for name, line in lines if line])
    axes.set(xlabel=STEPS, ylabel=name_of_memory({key for key in keys if key}))
    _start_at_zero(axes)
    legend(figure, axes)
    return Picture(
        "memory_per_step",
        "Memory per step",
        "The highest memory in use within each step; the band reaches over the seeds.",
        figure,
    )


def memory_of_run(run: Run) -> Picture | None:
    """The peak of each step, split into what it was held for where that is known, and tokens per second below."""
    key = _memory_key([run])
    peak, speed = curve([run], key, of_cell="max") if key else None, curve([run], SPEED)
    rows = [row for row in ("memory", "speed") if (peak if row == "memory" else speed)]
    if not rows:
        return None
    figure = new_figure(8.4, 2.5 * len(rows) + 0.3)
    panels = dict(zip(rows, figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0], strict=True))
    if peak is not None and key:
        axes = panels["memory"]
        parts = [(name, part) for name in PARTS if (part := curve([run], name, of_cell="max"))]
        if parts and all(len(part.steps) == len(peak.steps) for _, part in parts):
            stacked = np.stack([part.mean for _, part in parts])
            names = [name_of_part(name) for name, _ in parts]
            axes.stackplot(peak.steps, stacked, labels=names, colors=SPLIT_COLOURS, linewidth=0, alpha=0.85)
        draw_lines(axes, [("peak", peak, Look(INK, "o", DASHES[0]))])
        axes.set_ylabel(name_of_memory({key}))
        _start_at_zero(axes)
        if parts:
            legend(figure, axes)
    if speed is not None:
        draw_lines(panels["speed"], [("tokens per second", speed, Look(COLOURS[0], "o", DASHES[0]))])
        panels["speed"].set_ylabel("tokens per second")
        _start_at_zero(panels["speed"])
    panels[rows[-1]].set_xlabel(STEPS)
    return Picture(
        "memory_and_speed",
        "Memory and speed per step",
        "The highest memory in use within each step, and tokens per second.",
        figure,
    )


def _memory_key(runs: Sequence[Run]) -> str | None:
    return next((key for key in PEAK_MEMORY if any(run.memory_key == key for run in runs)), None)


def name_of_memory(keys: set[str]) -> str:
    """A label for peaks that were logged under these keys."""
    return "peak resident memory, GiB" if keys == {PEAK_MEMORY[1]} else "peak memory, GiB"


def name_of_part(key: str) -> str:
    return key.removeprefix("memory/").removesuffix("_gib").replace("_", " ")


def _start_at_zero(axes: Axes) -> None:
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, axes.get_ylim()[1] * 1.05)
