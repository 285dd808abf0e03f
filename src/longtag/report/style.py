"""How every figure of a report looks: colours, sizes, axes, and how it becomes SVG or PNG."""

import base64
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

INK = "#1f2328"
"""Text, axes and the last of the colours; in a page it becomes the colour that the reader's light or dark mode asks."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
"""Okabe and Ito's palette, which the colour-blind can tell apart, less its yellow, which is faint on white."""

SPLIT_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9")
MARKERS = "osD^vPX"
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
MUTED = "#8b949e"
LEGEND_WIDTH = 30
"""Characters."""

FEW_DECADES = 0.6
"""Below, an axis may have room for one power of ten alone or none, and has ticks at even steps."""

LEGEND_LINE, LEGEND_GAP = 0.16, 0.08
"""Inches: a line of text, and what lies between two names."""


RC: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.grid": False,
    "grid.color": MUTED,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "longtag",
}


@dataclass(frozen=True)
class Look:
    """How a variant is drawn in every figure."""

    colour: str
    marker: str
    dash: Any


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name; beyond seven the colours come again with other markers and dashes."""
    return {
        name: Look(
            COLOURS[place % len(COLOURS)],
            MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
            DASHES[place // len(COLOURS) % len(DASHES)],
        )
        for place, name in enumerate(names)
    }


@contextmanager
def styled() -> Iterator[None]:
    """Figures are made and saved inside, so that nobody else's settings change."""
    with rc_context(RC):
        yield


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """Inches; the layout keeps texts apart, and compressed also brings square panels together."""
    return Figure(figsize=(width, height), layout=layout)


def as_png(figure: Figure, dpi: int = 130) -> bytes:
    content = BytesIO()
    figure.savefig(content, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return content.getvalue()


def as_svg(figure: Figure) -> bytes:
    """An SVG that is dark on light or light on dark, as its reader's browser prefers."""
    content = BytesIO()
    figure.savefig(content, format="svg", facecolor="none", dpi=130, metadata={"Date": None})
    text = content.getvalue().decode()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    scheme = f"svg{{color:{INK}}}@media(prefers-color-scheme:dark){{svg{{color:#e6edf3}}}}"
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{scheme}</style>", text, count=1).encode()


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def wrapped(name: str, width: int = LEGEND_WIDTH) -> str:
    """Long names on several lines, and a word that is longer than a line in pieces."""
    return "\n".join(piece for line in name.splitlines() for piece in textwrap.wrap(line, width)) or name


def legend(figure: Figure, *panels: Axes) -> None:
    """Of all panels, beside them, where it hides no data; the figure grows where there is much to name.

    What several panels draw looks as in the last of them, the one where curves are short enough to have markers.
    """
    named: dict[str, Any] = {}
    for axes in panels:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named[wrapped(name)] = handle
    lines = sum(label.count("\n") + 1 for label in named)
    needed = LEGEND_LINE * lines + LEGEND_GAP * (len(named) + 1)
    figure.set_figheight(max(figure.get_figheight(), needed))
    if named:
        figure.legend(list(named.values()), list(named), loc="outside right upper")


def number(value: float, _: Any = None) -> str:
    """As short as it can be read: 0.25, 12, 3,500, 42.5k, 1.2M."""
    if value == 0 or not np.isfinite(value):
        return "0" if value == 0 else ""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / min(size, 1e3 if unit == 'k' else size):.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def three_digits(value: float) -> str:
    """0.257, 3.12, 3,500, 910k: as much as a table needs of what is measured and never twice the same."""
    return number(float(f"{value:.3g}"))


def scale(
    axes: Axes, which: str, values: Sequence[float] | np.ndarray, *, spans: float = 20, whole: bool = False
) -> None:
    """Logarithmic where positive values span more than `spans` times; few ticks, read as plain numbers.

    whole: ticks at whole numbers alone, as of steps.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if low > 0 and high > spans * low:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        decades = np.log10(high / low)
        if decades < FEW_DECADES:
            axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        else:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.7 else (1, 3) if decades < 3 else (1,)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], integer=whole))
    axis.set_major_formatter(FuncFormatter(number))


def shares(axes: Axes, which: str, *, low: float = 0.0, high: float = 1.0) -> None:
    """An axis of shares from 0 to 1 with room for markers at its ends."""
    room = 0.03 * (high - low)
    (axes.set_xlim if which == "x" else axes.set_ylim)(low - room, high + room)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(number))
