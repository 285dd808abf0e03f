"""A timeline of memory as a figure: what is allocated over one step, and what runs meanwhile."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from longtag.memory.step_marks import Span
from longtag.memory.timeline import Timeline, name_of
from sparse_attention.pictures.file import write_whole

# From the palette of Okabe and Ito, which the colour-blind can tell apart.
AREAS = {"weights": "#7f7f7f", "optimizer states": "#bdbdbd", "gradients": "#cc79a7"}
REST = "#56b4e9"
RUNS = {"forward": "#0072b2", "recompute": "#e69f00", "backward": "#d55e00", "optimizer": "#009e73"}
WORDS = {"recompute": "recomputed in backward"}
PAGE_INCHES = (11, 5)
POINTS_A_LETTER = 0.62
"""Width of a letter or digit, as a share of the size of the font."""
MOST_POINTS = 6000
"""Of a curve: more than there are pixels to tell apart."""


def draw(timeline: Timeline, title: str, path: Path) -> None:
    """Draw a timeline to a PNG, which is written whole or not at all."""
    content = BytesIO()
    page(timeline, title).savefig(content, dpi=110, format="png")
    write_whole(path, content.getvalue())


def page(timeline: Timeline, title: str) -> Figure:
    """The curve above, filled with what it is made of; below, phases and blocks against the same time."""
    figure = Figure(figsize=PAGE_INCHES, layout="constrained")
    curve, strip = figure.subplots(2, 1, sharex=True, height_ratios=(7, 1))
    start, end = int(timeline.times_ns[0]), int(timeline.times_ns[-1])
    seconds = (end - start) / 1e9
    unit, ns = ("s", 1e9) if seconds >= 10 else ("ms", 1e6)
    curve.set_xlim(0, max((end - start) / ns, 1e-9))
    _fill(curve, timeline, start, ns)
    _mark_phases((curve, strip), timeline.phases, start, ns)
    _draw_strip(strip, timeline, start, ns)
    strip.set_xlabel(f"time in the step, {unit}")
    figure.suptitle(f"{title}: peak {in_words(timeline.peak)}, in {timeline.where(timeline.peak_ns)}", fontsize=11)
    kinds = [kind for kind in RUNS if any(span.kind == kind for span in (*timeline.phases, *timeline.runs))]
    handles = [
        Patch(color=colour, label=name) for name, colour in (*AREAS.items(), ("activations and temporary", REST))
    ]
    handles += [Patch(color=RUNS[kind], label=WORDS.get(kind, kind)) for kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False,
                  handlelength=1.2, columnspacing=1.4)  # fmt: skip
    return figure


def in_words(size: int) -> str:
    """Bytes in the unit that suits them: 512 MiB, 1.50 GiB."""
    unit, power = _unit(size)
    return f"{size / power:.3g} {unit}"


def _unit(size: int) -> tuple[str, int]:
    return ("GiB", 2**30) if size >= 2**30 else ("MiB", 2**20) if size >= 2**20 else ("KiB", 2**10)


def _fill(axes: Axes, timeline: Timeline, start: int, ns: float) -> None:
    unit, power = _unit(timeline.peak)
    kept = _enough(timeline.allocated)
    times = (timeline.times_ns[kept] - start) / ns
    total = timeline.allocated[kept]
    below = np.zeros_like(total)
    for name, size in zip(AREAS, (timeline.weights, timeline.optimizer_states, timeline.gradients[kept]), strict=True):
        above = np.minimum(below + size, total)
        axes.fill_between(times, below / power, above / power, step="post", color=AREAS[name], linewidth=0)
        below = above
    axes.fill_between(times, below / power, total / power, step="post", color=REST, linewidth=0)
    axes.step(times, total / power, where="post", color="0.1", linewidth=0.4)
    peak = int(total.argmax())
    axes.plot(times[peak], total[peak] / power, marker="v", color="black", markersize=6, clip_on=False)
    axes.set_ylim(0, timeline.peak / power * 1.06)
    axes.set_ylabel(f"allocated, {unit}")
    axes.grid(axis="y", color="0.85", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _enough(values: np.ndarray) -> np.ndarray:
    """Indices of the lowest and the highest of each of many short stretches, and of both ends."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    stretches = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
    picked = [stretch[[values[stretch].argmin(), values[stretch].argmax()]] for stretch in stretches]
    return np.unique(np.concatenate([*picked, [0, len(values) - 1]]))


def _mark_phases(axes: Sequence[Axes], phases: Sequence[Span], start: int, ns: float) -> None:
    for phase in phases[1:]:
        for each in axes:
            each.axvline((phase.start_ns - start) / ns, color="black", linewidth=0.8, linestyle=(0, (4, 3)))


def _draw_strip(axes: Axes, timeline: Timeline, start: int, ns: float) -> None:
    """A row of phases and a row of blocks, each with its name where there is room."""
    axes.set_ylim(0, 2)
    axes.set_yticks([1.5, 0.5], labels=["phase", "block"])
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    for span in (*timeline.phases, *sorted(timeline.runs, key=lambda span: span.kind == "recompute")):
        left, width = (span.start_ns - start) / ns, (span.end_ns - span.start_ns) / ns
        bottom = 1.08 if span.part is None else 0.08
        axes.broken_barh([(left, width)], (bottom, 0.84), color=RUNS[span.kind], edgecolor="white", linewidth=0.6)
    phases = [(span, span.kind) for span in timeline.phases]
    _write(axes, phases, 1.5, start, ns, size=9)
    blocks = [(_label_place(span, timeline.runs), _short(span)) for span in timeline.runs if span.kind != "recompute"]
    _write(axes, blocks, 0.5, start, ns, size=7.5)


def _short(run: Span) -> str:
    assert run.part is not None
    return name_of(run.part).split()[-1] if run.part != "head" else "head"


def _label_place(run: Span, runs: Sequence[Span]) -> Span:
    """A run, or of a backward what follows its recomputation, on whose colour white is hard to read."""
    inside = [each.end_ns for each in runs if each.kind == "recompute" and run.start_ns <= each.end_ns <= run.end_ns]
    return run._replace(start_ns=max(inside)) if inside else run


def _write(axes: Axes, labels: Sequence[tuple[Span, str]], y: float, start: int, ns: float, *, size: float) -> None:
    """Texts in the middle of their spans, from left to right, left out where they would touch one another.

    A word has to fit its span; a number may stick out, since its neighbours follow in order.
    """
    lower, upper = axes.get_xlim()
    # Roughly what the layout leaves of the page for the axes.
    points = PAGE_INCHES[0] * 72 * 0.92 / (upper - lower)
    free_from = -np.inf
    for span, text in sorted(labels, key=lambda label: label[0].start_ns):
        left, right = ((time - start) / ns * points for time in (span.start_ns, span.end_ns))
        width = len(text) * size * POINTS_A_LETTER
        middle = (left + right) / 2
        fits = text.isdigit() or width <= right - left
        if fits and middle - width / 2 >= free_from:
            free_from = middle + width / 2 + 2
            # Around it the colour of its span: the borders of narrow blocks would run through it.
            halo = [withStroke(linewidth=2.5, foreground=RUNS[span.kind])]
            place = {"ha": "center", "va": "center", "path_effects": halo}
            axes.text(middle / points, y, text, fontsize=size, color="white", **place)
