"""Which keys the queries of each pattern see, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hydra.errors import HydraException
from matplotlib.colors import LogNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator
from omegaconf.errors import OmegaConfBaseException

from longtag.assembly import pattern_of
from longtag.report.figures.picture import Picture
from longtag.report.runs import Run
from longtag.report.style import new_figure, number, wrapped
from sparse_attention.pictures.cells import share_by_cell
from sparse_attention.pictures.heads import head_groups, heads_in_words

CELLS = 96
COLUMNS = 4
MOST_PANELS = 12


@dataclass(frozen=True)
class _Map:
    """shares: (cells, cells) float64, per cent of the pairs that are attended, NaN for none."""

    name: str
    shares: np.ndarray
    tokens: int


def pattern_pictures(runs: Sequence[tuple[str, Run]]) -> Picture | None:
    """A panel for each different pattern.

    runs: a run for each name; those whose pattern cannot be built here, or depends on inputs, are left out.
    """
    drawn: dict[str, _Map] = {}
    for name, run in runs:
        what = f"{run.config.get('pattern')} {run.option('tokens')}"
        if what not in drawn and len(drawn) < MOST_PANELS and (found := _map(name, run)) is not None:
            drawn[what] = found
    if not drawn:
        return None
    maps = list(drawn.values())
    columns = min(COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(max(4.2, 2.35 * columns + 0.4), 2.6 * rows + 0.9, layout="compressed")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    seen = np.concatenate([one.shares[np.isfinite(one.shares)] for one in maps])
    norm = LogNorm(seen.min(initial=50), 100)
    image = None
    for place, (axes, one) in enumerate(zip(panels, maps, strict=False)):
        extent = (0, one.tokens, one.tokens, 0)
        axes.set_facecolor("white")
        image = axes.imshow(one.shares, cmap="viridis_r", norm=norm, extent=extent, interpolation="nearest")
        axes.set_title(wrapped(one.name, 26))
        axes.spines[:].set_visible(True)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=2, integer=True))
            axis.set_major_formatter(FuncFormatter(number))
        if place % columns == 0:
            axes.set_ylabel("query position")
        if place + columns >= len(maps):
            axes.set_xlabel("key position")
    for axes in panels[len(maps) :]:
        axes.set_axis_off()
    if image is not None:
        bar = figure.colorbar(image, ax=list(panels), location="bottom", shrink=0.6, aspect=40)
        bar.set_label("% of the pairs of a cell that are attended; white: none")
        bar.ax.xaxis.set_major_formatter(FuncFormatter(number))
        bar.minorticks_off()
    return Picture(
        "patterns",
        "Patterns" if len(maps) > 1 else "Pattern",
        "Which keys each query sees. Positions are in tokens; patterns that choose keys by content are not drawn.",
        figure,
    )


def _map(name: str, run: Run) -> _Map | None:
    try:
        layout = pattern_of(run.config)(int(run.option("tokens"))).to("cpu")
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, OSError):
        return None  # a table that was moved, options of another version
    if layout.depends_on_inputs:
        return None
    groups = head_groups(layout)
    cell = -(-layout.num_tokens // CELLS)
    shares = 100 * share_by_cell(groups[0].layout, cell, cell).numpy()
    heads = f" ({heads_in_words(groups[0].heads)})" if len(groups) > 1 else ""
    return _Map(name + heads, np.where(shares > 0, shares, np.nan), layout.num_tokens)
