# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from longtag.figures.memory_timeline import AREAS, draw, in_words, page
from longtag.memory.step_marks import Mark, StepMarks
from longtag.memory.timeline import Timeline, build

MIB = 2**20


def saw_tooth(num_layers: int, block_ns: int = 1_000_000) -> Timeline:
    """A checkpointed step: forward climbs by what blocks keep, backward has a tooth for each."""
    marks, points, now, kept = StepMarks(), [(0, 400 * MIB)], 0, 400 * MIB
    marks.marks.append(Mark(0, "forward"))
    for block in range(num_layers):
        marks.marks += [Mark(now, "enter", block), Mark(now := now + block_ns, "leave", block)]
        points.append((now, kept := kept + 10 * MIB))
    marks.marks += [Mark(now := now + block_ns // 5, "zero_grad"), Mark(now, "backward"), Mark(now + 1, "done", "head")]
    for block in reversed(range(num_layers)):
        marks.marks += [Mark(now + 2, "enter", block), Mark(now + block_ns, "leave", block)]
        points += [(now + block_ns, kept + 100 * MIB), (now + 3 * block_ns, kept := kept - 10 * MIB)]
        marks.marks.append(Mark(now := now + 3 * block_ns, "done", block))
    marks.marks += [Mark(now, "optimizer"), Mark(now + block_ns // 10, "end")]
    times, sizes = zip(*points, strict=True)
    of_parts = dict.fromkeys(range(num_layers), 100 * MIB // num_layers)
    return build(
        (np.array(times), np.array(sizes)),
        marks,
        weights=100 * MIB,
        optimizer_states=200 * MIB,
        gradients_before=100 * MIB,
        gradients_of_parts=of_parts,
        gradients_after=100 * MIB,
    )


@pytest.mark.parametrize("num_layers", [1, 2, 12, 24, 96])
def test_no_two_texts_of_the_page_touch_and_none_leaves_it(num_layers):
    figure = page(saw_tooth(num_layers), "Step 3, 100,000 tokens on CUDA")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    curve, strip = figure.axes
    texts = [figure._suptitle, curve.yaxis.label, strip.xaxis.label, *strip.texts, *figure.legends[0].get_texts()]
    lower, upper = strip.get_xlim()
    texts += [tick.label1 for tick in strip.xaxis.get_major_ticks() if lower <= tick.get_loc() <= upper]
    texts += [*curve.get_yticklabels()[:-1], *strip.get_yticklabels()]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_visible() and text.get_text()]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize(("num_layers", "at_least"), [(2, 4), (12, 24), (24, 36), (96, 60)])
def test_blocks_carry_their_numbers_where_there_is_room(num_layers, at_least):
    _, strip = page(saw_tooth(num_layers), "Step 3").axes
    numbers = [text.get_text() for text in strip.texts if text.get_text().isdigit()]
    assert len(numbers) >= at_least
    assert "1" in numbers


def test_the_title_tells_the_peak_and_where_it_is():
    figure = page(saw_tooth(2), "Step 3")
    assert figure.get_suptitle() == "Step 3: peak 520 MiB, in backward of block 2"


def test_the_areas_add_up_to_the_curve():
    timeline = saw_tooth(2)
    curve, _ = page(timeline, "Step 3").axes
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in curve.collections]
    assert len(tops) == len(AREAS) + 1
    assert tops[:3] == pytest.approx([100, 300, 400])
    assert tops[3] == pytest.approx(timeline.peak / MIB)


def test_a_curve_of_very_many_points_is_drawn_with_its_peak(tmp_path):
    timeline = saw_tooth(2)
    times = np.arange(200_000) * 30
    sizes = np.full(200_000, 450 * MIB)
    sizes[123_456] = 999 * MIB
    zeros = np.zeros(200_000, dtype=np.int64)
    long = Timeline(times, sizes, zeros, 0, 0, timeline.phases, timeline.runs)
    curve, _ = page(long, "Step 3").axes
    assert curve.lines[0].get_ydata().max() == 999
    assert len(curve.lines[0].get_ydata()) <= 6002
    draw(long, "Step 3", tmp_path / "long.png")
    assert imread(tmp_path / "long.png").shape[1] >= 1000
    assert [path.name for path in tmp_path.iterdir()] == ["long.png"]


@pytest.mark.parametrize(("size", "words"), [(2**30, "1 GiB"), (int(4.517 * 2**30), "4.52 GiB"), (94 * MIB, "94 MiB")])
def test_bytes_are_told_in_the_unit_that_suits_them(size, words):
    assert in_words(size) == words
