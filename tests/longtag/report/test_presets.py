"""What presets of memory save, and what that costs."""

import re
from pathlib import Path

from longtag.report.figures.picture import Picture
from longtag.report.write import describe

from . import fake


def picture(folder: Path) -> Picture | None:
    found = [one for one in describe([folder]).pictures if one.name == "memory_presets"]
    return found[0] if found else None


def test_presets_of_one_length_stand_together_with_savings_against_the_hungriest(tmp_path):
    fake.write_lengths(tmp_path, ["dilated"], [2000, 4000], presets=["fast", "balanced", "lean"])
    drawn = picture(tmp_path)
    assert drawn is not None
    memory, time = drawn.figure.axes
    presets = ["memory=fast", "memory=balanced", "memory=lean"]
    labels = {label.get_position()[1]: label.get_text() for label in memory.get_yticklabels()}
    assert [labels[place] for place in sorted(labels)] == ["tokens=2000", *presets, "tokens=4000", *presets]
    assert (memory.get_xlabel(), time.get_xlabel()) == ("peak memory, GiB", "step time, ms")
    written = [[text.get_text().split("  ") for text in axes.texts] for axes in (memory, time)]
    for (_, *ours), expected in zip((written[0][:3], written[1][:3]), ([-50, -75], [100, 200]), strict=True):
        found = [int(re.fullmatch(r"([+-]\d+) %", share)[1]) for _, share in ours]  # pyright: ignore
        assert all(abs(one - other) <= 3 for one, other in zip(found, expected, strict=True))
    assert abs(float(written[0][3][0]) - 4) < 0.1
    assert len(written[0][3]) == 1


def test_bars_show_what_the_peak_was_made_of(tmp_path):
    fake.write_lengths(tmp_path, ["dilated"], [2000], presets=["fast", "lean"])
    drawn = picture(tmp_path)
    assert drawn is not None
    bars = drawn.figure.axes[0].containers
    assert [bar.get_label() for bar in bars] == [part.replace("_", " ") for part in fake.PARTS]
    widths = [bar[0].get_width() for bar in bars]
    assert [round(width / sum(widths), 6) for width in widths] == list(fake.PARTS.values())


def test_single_levers_are_compared_too(tmp_path):
    for number, tile in enumerate(("null", "8192")):
        figures = (0.9, 4 - number, 1e5)
        fake.write_run(tmp_path / str(number), overrides=[f"memory.tile_tokens={tile}"], figures=figures)
    drawn = picture(tmp_path)
    assert drawn is not None
    assert [label.get_text() for label in drawn.figure.axes[0].get_yticklabels()] == [
        "tile_tokens=null",
        "tile_tokens=8192",
    ]


def test_there_is_no_figure_where_nothing_of_memory_varies(sweep):
    assert picture(sweep) is None
