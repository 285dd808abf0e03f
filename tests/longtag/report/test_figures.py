"""Figures as their readers get them: nothing overlaps, nothing is cut, and what is drawn is what was measured."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from longtag.report.document import Document
from longtag.report.style import COLOURS, looks, number, styled, three_digits
from longtag.report.write import describe

from . import fake

LONG = "memory=the_very_long_name_of_a_preset_without_a_break"


def documents(tmp_path: Path) -> Iterator[tuple[str, Document]]:
    """Reports of one run, of six patterns, of twelve variants with long names and figures from 1 to 1,000,000."""
    fake.write_run(tmp_path / "one", distances=[4, 64, 1024, 65536], tokens=2000)
    yield "one", describe([tmp_path / "one"])
    fake.write_sweep(tmp_path / "six", seeds=2, steps=40, tokens=2000, distances=[4, 64, 1024])
    yield "six", describe([tmp_path / "six"])
    for number_of_run, pattern in enumerate([*fake.PATTERNS] * 2):
        options = [LONG if number_of_run % 2 else "memory=fast", f"model.d_model={64 + number_of_run // 6}"]
        figures = (0.4 + 0.05 * number_of_run, 10 ** (number_of_run / 2), 10 ** (6 - number_of_run / 2))
        fake.write_run(
            tmp_path / "twelve" / str(number_of_run),
            pattern=pattern,
            overrides=options,
            figures=figures,
            tokens=2000,
            steps=0 if number_of_run == 3 else 40,
            status="failed" if number_of_run == 3 else None if number_of_run == 4 else "completed",
        )
    yield "twelve", describe([tmp_path / "twelve"])
    fake.write_lengths(tmp_path / "lengths", [*fake.PATTERNS], [1250, 2500, 5000, 10_000, 20_000], steps=5)
    yield "lengths", describe([tmp_path / "lengths"])
    close, names = [9000, 9500, 10_000, 10_500, 100_000], ["fast", "balanced", LONG[7:]]
    fake.write_lengths(tmp_path / "presets", ["dilated"], close, presets=names, steps=5)
    yield "presets", describe([tmp_path / "presets"])


def visible_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    with styled():
        FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    hidden = [text for axes in figure.axes for text in _hidden_texts(axes)]
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    drawn = [text for text in texts if not any(text is other for other in hidden)]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in drawn]


def _hidden_texts(axes: Axes) -> Iterator[Text]:
    """Labels of ticks outside the limits of their axis, and everything of axes that are switched off."""
    for axis in (axes.xaxis, axes.yaxis):
        place_of = axis.get_transform().transform
        low, high = sorted(place_of(np.asarray(axis.get_view_interval())))
        room = 1e-6 * (high - low)
        shown = axis.get_major_ticks()
        for tick in axis.majorTicks:
            is_inside = low - room <= place_of(np.asarray([tick.get_loc()]))[0] <= high + room
            is_shown = axes.axison and tick in shown and is_inside
            yield from () if is_shown else (tick.label1, tick.label2)
        if not axes.axison:
            yield axis.label


def test_no_texts_overlap_and_none_is_cut_off(tmp_path):
    seen = set()
    for name, document in documents(tmp_path):
        for picture in document.pictures:
            seen.add(picture.name)
            texts = visible_texts(picture.figure)
            width, height = picture.figure.canvas.get_width_height()
            for text, box in texts:
                inside = box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1
                assert inside, f"{name}, {picture.name}: {text!r} is cut off"
            for (one, its_box), (other, other_box) in combinations(texts, 2):
                common = Bbox.intersection(its_box, other_box)
                if common is not None:
                    # Boxes of rotated texts are larger than what is drawn; a touch is no overlap.
                    assert common.width < 2 or common.height < 2 or _turned(picture.figure, one, other), (
                        f"{name}, {picture.name}: {one!r} lies over {other!r}"
                    )
    assert {"trade_off", "learning_curves", "f1_by_class", "memory_per_step", "patterns", "calibration"} < seen
    assert {"step_against_tokens", "memory_presets"} < seen


def _turned(figure: Figure, *texts: str) -> bool:
    found = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text() in texts]
    return all(text.get_rotation() % 90 for text in found)


def test_a_variant_has_one_colour_in_all_figures(sweep):
    document = describe([sweep])
    found: dict[str, set[str]] = {}
    for picture in document.pictures:
        for axes in picture.figure.axes:
            handles, labels = axes.get_legend_handles_labels()
            for handle, label in zip(handles, labels, strict=True):
                line = handle[0] if isinstance(handle, tuple) else handle
                assert isinstance(line, Line2D)
                found.setdefault(label, set()).add(str(line.get_color()))
    assert {label: len(colours) for label, colours in found.items() if label in ("window", "dilated", "bigbird")} == {
        "window": 1,
        "dilated": 1,
        "bigbird": 1,
    }


def test_twenty_variants_all_look_different():
    look_of = looks([str(place) for place in range(20)])
    assert len({(look.colour, look.marker, str(look.dash)) for look in look_of.values()}) == 20
    assert len({look.colour for look in list(look_of.values())[: len(COLOURS)]}) == len(COLOURS)


def test_a_legend_shows_the_marker_of_each_variant_and_no_bars(sweep):
    look_of = looks(["window", "dilated", "bigbird"])
    for name in ("trade_off", "learning_curves"):
        (picture,) = [picture for picture in describe([sweep]).pictures if picture.name == name]
        (legend,) = picture.figure.legends
        markers = {}
        for text, handle in zip(legend.texts, legend.legend_handles, strict=True):
            assert isinstance(handle, Line2D)
            markers[text.get_text()] = handle.get_marker()
        assert markers == {variant: look.marker for variant, look in look_of.items()}


def test_what_costs_nearly_the_same_lies_close_together(tmp_path):
    for pattern, memory, speed in (("window", 4.62, 4e5), ("dilated", 4.66, 8e5)):
        fake.write_run(tmp_path / pattern, pattern=pattern, figures=(0.9, memory, speed))
    (picture,) = [picture for picture in describe([tmp_path]).pictures if picture.name == "trade_off"]
    memory, speed = (np.ptp(axes.get_xlim()) for axes in picture.figure.axes)
    assert 0.2 < memory < 0.3, "GiB: 0.04 apart, which is one per cent"
    assert 4e5 < speed < 6e5


def test_accuracy_by_distance_is_drawn_on_a_log_axis_with_the_level_of_chance(sweep):
    (picture,) = [picture for picture in describe([sweep]).pictures if picture.name == "accuracy_by_distance"]
    (axes,) = picture.figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert axes.get_xscale() == "log"
    window, dilated, bigbird = (np.asarray(lines[name].get_xdata()) for name in ("window", "dilated", "bigbird"))
    assert dilated.tolist() == [4, 64]
    assert axes.get_xticks().tolist() == [4, 64]
    # Beside one another, or the last would hide the others.
    assert 3 < window[0] < 4 < bigbird[0] < 5
    # Of the tokens of the fake test, 43.2 % are of the most frequent class.
    assert np.asarray(lines["chance, 0.432"].get_ydata())[0] == pytest.approx(0.432, abs=0.01)


def test_the_reliability_diagram_tells_the_error_it_was_given(tmp_path):
    document = describe([fake.write_run(tmp_path / "one")])
    (picture,) = [picture for picture in document.pictures if picture.name == "calibration"]
    assert picture.figure.axes[0].get_title(loc="left") == "expected calibration error 0.032"


@pytest.mark.parametrize(
    ("value", "short", "in_table"),
    [(0, "0", "0"), (0.25, "0.25", "0.25"), (3500, "3,500", "3,500"), (42_500, "42.5k", "42.5k"), (1e6, "1M", "1M")],
)
def test_numbers_are_short(value, short, in_table):
    assert (number(value), three_digits(value)) == (short, in_table)
