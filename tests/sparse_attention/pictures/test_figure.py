"""Figures: all of them can be drawn, nothing overlaps, and what is drawn is the pattern."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from sparse_attention import Dense, IndexList, Layout, patterns
from sparse_attention.pictures.cost import Spread, cost_table
from sparse_attention.pictures.figure import MOST_CELLS, draw, draw_histogram, draw_patterns, page
from sparse_attention.pictures.heads import head_groups
from tests.sparse_attention.block_layouts import block_layout


def drawn(layout: Layout) -> Figure:
    figure = Figure(figsize=(6, 6), layout="constrained")
    draw_patterns(figure, head_groups(layout))
    return figure


def cells_of(panel: Axes) -> torch.Tensor:
    """The numbers behind the colours; -1 where nothing is drawn."""
    shown = panel.images[0].get_array()
    assert shown is not None
    return torch.from_numpy(np.ma.array(shown).filled(-1))


def test_short_patterns_show_every_pair_and_which_are_listed_twice() -> None:
    layout = IndexList(torch.tensor([[0, 0, 1], [2, -1, -1], [1, 2, 0]]))
    (panel,) = drawn(layout).axes
    assert cells_of(panel).tolist() == [[2, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_long_patterns_show_shares_in_few_cells_and_leave_unseen_ones_white() -> None:
    panel, bar = drawn(patterns.window(100_000, window=8)).axes
    cells = cells_of(panel)
    assert cells.shape == (MOST_CELLS, MOST_CELLS)
    assert (cells.diagonal() > 0).all()
    assert (cells.triu(2) + cells.tril(-2) == -1).sum() == MOST_CELLS**2 - 3 * MOST_CELLS + 2
    assert bar.get_xlabel() == "% attended of the 391 x 391 pairs of a cell; white: none"


def test_axes_name_what_they_count_and_in_which_unit() -> None:
    for layout in (patterns.random(20), patterns.random(2000)):
        panel = drawn(layout).axes[0]
        assert panel.get_xlabel() == "key position, tokens"
        assert panel.get_ylabel() == "query position, tokens"
        bottom, top = panel.get_ylim()
        assert bottom > top, "queries run downwards, as rows of a matrix"


def test_each_different_head_has_a_panel_and_those_left_out_are_counted() -> None:
    figure = drawn(block_layout(num_tokens=60, heads=8, seed=1))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"head {head}" for head in range(6)]
    assert "6 of 8 different patterns" in figure.get_supxlabel()


@pytest.mark.parametrize(
    ("values", "heights"),
    [
        ([3, 3, 5], [2, 0, 1]),
        ([100, 100, 178, 179], [2, *[0] * 38, 2]),
        ([0, 1, 2, 3, 4, 1000], [1, 1, 2, 1, *[0] * 6, 1]),
    ],
)
def test_histograms_count_everything_in_whole_numbers_ranges_or_powers_of_two(
    values: list[int], heights: list[int]
) -> None:
    axes = Figure().subplots()
    draw_histogram(axes, torch.tensor(values), xlabel="", ylabel="")
    found = [int(bar.get_height()) for bar in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert sum(found) == len(values)
    assert found == heights


AWKWARD = {
    "one token": Dense(1),
    "16 tokens": patterns.longformer(16, window=1, num_global=1),
    "100 tokens": patterns.random(100),
    "4,096 tokens": patterns.longformer(4096, window=3, num_global=2),
    "two decades of shares": patterns.strided(4096, stride=64),
    "100,000 tokens": patterns.longformer(100_000, window=3, num_global=2),
    "eight heads": block_layout(num_tokens=300, heads=8, seed=1),
    "few queries": block_layout(num_tokens=20, num_keys=400, seed=1),
    "no edges": IndexList(torch.full((300, 1), -1)),
    "dense and long": Dense(1_000_000, causal=True),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_no_text_overlaps_another_or_leaves_the_page(name: str) -> None:
    layout = AWKWARD[name]
    groups = head_groups(layout)
    spread = Spread.of(groups)
    figure = page(groups, spread, cost_table(layout, spread), f"pattern={name}")
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    boxes = {}
    for text in texts:
        axes = text.axes
        box = text.get_window_extent()
        if axes is None or axes.axison or text in axes.texts:
            boxes[text] = box
    ticks = {label for axes in figure.findobj(Axes) for label in _unseen_ticks(axes)}
    boxes = {text: box for text, box in boxes.items() if text not in ticks}
    assert len(boxes) > 30
    page_box = figure.bbox
    items = list(boxes.items())
    for number, (text, box) in enumerate(items):
        assert box.x0 >= page_box.x0 - 1, text
        assert box.x1 <= page_box.x1 + 1, text
        assert box.y0 >= page_box.y0 - 1, text
        assert box.y1 <= page_box.y1 + 1, text
        for other, other_box in items[:number]:
            shared = box.intersection(box, other_box)
            assert shared is None or min(shared.width, shared.height) < 1, f"{text} and {other}"


def _unseen_ticks(axes: Axes) -> set[Text]:
    """Labels of ticks beyond the limits, which matplotlib keeps but does not draw."""
    drawn = set()
    for axis in (axes.xaxis, axes.yaxis):
        updated = axis._update_ticks()  # pyright: ignore[reportAttributeAccessIssue]
        shown = {label for tick in updated for label in (tick.label1, tick.label2)}
        every = {label for tick in (*axis.majorTicks, *axis.minorTicks) for label in (tick.label1, tick.label2)}
        drawn |= every - shown
    return drawn


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_pattern_gives_the_same_file(suffix: str, tmp_path: Path) -> None:
    layout = patterns.random(30)
    groups = head_groups(layout)
    spread = Spread.of(groups)
    contents = []
    for _ in range(2):
        draw(groups, spread, cost_table(layout, spread), "pattern=random", tmp_path / f"random{suffix}")
        contents.append((tmp_path / f"random{suffix}").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0][:4] == {".png": b"\x89PNG", ".svg": b"<?xm", ".pdf": b"%PDF"}[suffix]
    assert [file.name for file in tmp_path.iterdir()] == [f"random{suffix}"]
