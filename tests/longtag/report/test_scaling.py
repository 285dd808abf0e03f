"""Step time and memory against the length of a crop."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from longtag.report.figures.picture import Picture
from longtag.report.figures.scaling import exponent
from longtag.report.write import describe

from . import fake


def picture(folder: Path) -> Picture | None:
    found = [one for one in describe([folder]).pictures if one.name == "step_against_tokens"]
    return found[0] if found else None


def panels(folder: Path) -> list[Axes]:
    drawn = picture(folder)
    assert drawn is not None
    return drawn.figure.axes


def powers(axes: Axes) -> dict[str, dict[str, float]]:
    """The exponents of each line, as the legend tells them."""
    names = [name.splitlines() for name in axes.get_legend_handles_labels()[1]]
    pattern = re.compile(r"(\w+) ~ tokens\^([\d.]+)")
    return {
        name: {found[1]: float(found[2]) for word in words if (found := pattern.fullmatch(word))}
        for name, *words in names
    }


def points(axes: Axes, name: str) -> list[float]:
    """The lengths that a line has a point at."""
    (line,) = [one for one in axes.containers if str(one.get_label()).startswith(f"{name}\n")]
    return line[0].get_xdata().tolist()


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_is_that_of_the_power_that_was_measured(power):
    tokens = [1000, 3000, 5000, 200_000]
    assert exponent(tokens, [7 * length**power for length in tokens]) == pytest.approx(power)


def test_each_pattern_is_a_line_with_the_exponents_of_its_time_and_memory(tmp_path):
    time, memory = panels(fake.write_lengths(tmp_path, power=1.5))
    assert [axes.get_ylabel() for axes in (time, memory)] == ["step time, ms", "peak memory, GiB"]
    assert all(axes.get_xscale() == axes.get_yscale() == "log" for axes in (time, memory))
    assert time.get_xlabel() == memory.get_xlabel() == "tokens of a crop"
    for axes in (time, memory):
        found = powers(axes)
        assert set(found) == {"dilated", "bigbird", "linear in tokens"}
        for name in ("dilated", "bigbird"):
            assert found[name] == pytest.approx({"time": 1.5, "memory": 1.0}, abs=0.02)
            assert points(axes, name) == [1000, 2000, 4000, 8000]
        assert list(axes.get_xticks()) == [1000, 2000, 4000, 8000]


def test_the_exponents_are_also_told_in_words(tmp_path):
    drawn = picture(fake.write_lengths(tmp_path, ["dilated"], power=2.0))
    assert drawn is not None
    assert re.search(r" dilated: time ~ tokens\^(2\.0|1\.9)\d, memory ~ tokens\^(1\.0|0\.9)\d\.$", drawn.caption)


def test_what_does_not_depend_on_tokens_lowers_the_exponent_of_memory(tmp_path):
    time, _ = panels(fake.write_lengths(tmp_path, fixed_gib=4))
    assert powers(time)["dilated"]["memory"] < 0.7


def test_presets_of_memory_are_lines_of_their_own(tmp_path):
    time, _ = panels(fake.write_lengths(tmp_path, ["dilated"], [1000, 4000], presets=["fast", "lean"]))
    assert set(powers(time)) == {"memory=fast", "memory=lean", "linear in tokens"}


def test_a_length_that_failed_or_is_alone_is_left_out(tmp_path):
    fake.write_lengths(tmp_path, ["dilated"])
    failed = {"steps": 0, "status": "failed", "error": "out of memory"}
    fake.write_run(tmp_path / "4", pattern="dilated", overrides=["tokens=16000"], **failed)
    fake.write_run(tmp_path / "5", pattern="bigbird", overrides=["tokens=1000"])
    jobs = [fake.job(number, []) for number in range(6)]
    fake.write_jobs(tmp_path, jobs)
    time, _ = panels(tmp_path)
    assert points(time, "dilated") == [1000, 2000, 4000, 8000]
    assert powers(time)["bigbird"] == {}


def test_a_line_has_its_name_and_colour_in_every_task_however_long_its_options(tmp_path):
    for number, (track, table, tokens) in enumerate(product(("coarse", "fine"), "01", (1000, 2000))):
        path = f"/a/long/path/{table}/to/a/table.npy"
        options = [f"data.track={track}", f"pattern.path={path}", f"tokens={tokens}"]
        fake.write_run(tmp_path / str(number), overrides=options)
    drawn = [one for one in describe([tmp_path]).pictures if one.name.startswith("step_against_tokens")]
    assert len(drawn) == 2
    colours = []
    for one in drawn:
        handles, labels = one.figure.axes[0].get_legend_handles_labels()
        containers = [handle for handle in handles if isinstance(handle, ErrorbarContainer)]
        names = [label.splitlines()[0] for label in labels if "\n" in label]
        colours.append({name: line[0].get_color() for name, line in zip(names, containers, strict=True)})
    assert list(colours[0]) == ["path=/a/long/pa…ble.npy (0)", "path=/a/long/pa…ble.npy (2)"]
    assert colours[0] == colours[1]


def test_seeds_are_a_bar_around_their_mean(tmp_path):
    fake.write_lengths(tmp_path, ["dilated"], seeds=2)
    _, memory = panels(tmp_path)
    ((_, _, (bars,)), *_) = memory.containers
    low, high = np.array(bars.get_segments())[0, :, 1]
    assert low < high


def test_there_is_no_figure_where_length_does_not_vary(sweep, tmp_path):
    assert picture(sweep) is None
    fake.write_lengths(tmp_path, lengths=[1000], presets=["fast", "lean"])
    assert picture(tmp_path) is None
