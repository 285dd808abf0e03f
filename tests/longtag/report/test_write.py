"""Files of a report, and the command that writes them."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from longtag.report import write_report
from longtag.report.__main__ import main

from . import fake

VOID = {"meta", "img", "br"}


class Strict(HTMLParser):
    """Refuses tags that are left open or closed twice, ids that are there twice, and figures without words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in named:
            assert named["id"] not in self.ids
            self.ids.add(str(named["id"]))
        if tag == "img":
            assert named["alt"]
        self.sources += [str(named[name]) for name in ("src", "href") if name in named]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: Path) -> Strict:
    parser = Strict()
    parser.feed(page.read_text())
    parser.close()
    assert not parser.open
    return parser


def test_a_page_of_twelve_runs_needs_nothing_else_and_is_small(tmp_path):
    page = write_report(fake.write_sweep(tmp_path, seeds=2, tokens=5000, distances=[4, 64]))
    assert page == tmp_path / "report.html"
    found = parsed(page)
    assert found.sources
    assert all(source.startswith("data:image/") for source in found.sources)
    text = re.sub(r"data:image/[^\"]*", "", page.read_text())
    assert "http" not in text
    assert not re.search(r"@import|url\(|<link|<script src", text)
    assert page.stat().st_size < 2e6
    assert {"comparison", "runs", "trade_off", "learning_curves", "f1_by_class", "patterns"} <= found.ids
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "trade_off.png", "learning_curves.png", "accuracy_by_distance.png", "f1_by_class.png", "memory_per_step.png",
        "patterns.png",
    }  # fmt: skip
    assert "![Learning curves](figures/learning_curves.png)" in (tmp_path / "report.md").read_text()


def test_experiments_on_data_of_their_own_have_a_section_each_and_one_table_of_both(tmp_path):
    for experiment, track in (("near", "coarse"), ("far", "replichore")):
        for pattern in ("window", "random"):
            given, distances = [f"experiment={experiment}"], [4, 64] if experiment == "far" else []
            folder = tmp_path / f"{experiment} {pattern}"
            fake.write_run(folder, pattern=pattern, overrides=given, track=track, distances=distances, tokens=2000)
    found = parsed(write_report(tmp_path))
    drawn = {"trade_off", "learning_curves", "f1_by_class", "memory_per_step"}
    each = {f"{name}-{experiment}" for name in drawn for experiment in ("near", "far")}
    assert found.ids == {"tasks", "comparison", "runs", "patterns", "accuracy_by_distance-far", *each}
    text = (tmp_path / "report.md").read_text()
    assert "4 runs: 2 variants, 2 tasks, 1 seed" in text
    assert text.index("| pattern | far | near |") < text.index("| experiment | pattern |")


def test_a_page_of_one_run_shows_its_test_and_the_timeline_of_its_memory(tmp_path):
    folder = fake.write_run(tmp_path / "mine", tokens=5000)
    (folder / "figures" / "memory_step_3.png").write_bytes(b"a picture")
    found = parsed(write_report(folder))
    assert found.ids == {
        "scores", "learning_curve", "memory_and_speed", "confusion_matrix", "class_scores", "calibration",
        "example_stretches", "patterns", "memory_step_3",
    }  # fmt: skip


def test_text_of_users_cannot_become_part_of_the_page(tmp_path):
    fake.write_run(tmp_path / "0", steps=0, status="failed", error="<script>alert(1)</script>\n<b>last & line")
    fake.write_run(tmp_path / "1", pattern="dilated", overrides=['logger.wandb.name="<i>"'])
    text = write_report(tmp_path).read_text()
    assert "<script>alert" not in text
    assert "&lt;b&gt;last &amp; line" in text
    assert "<i>" not in text
    parsed(tmp_path / "report.html")


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0, "status": "failed", "error": "broken"},
        {"steps": 7, "status": None},
        {"status": "completed", "evaluated": False},
        {"pattern": "not_built_here", "figures": (0.5, 1.0, 1.0)},
    ],
    ids=["failed at step 0", "in progress", "without an evaluation", "with an unknown pattern"],
)
def test_what_a_run_lacks_is_left_out_of_its_report(tmp_path, options):
    fake.write_run(tmp_path / "0", **options)
    assert parsed(write_report(tmp_path / "0")).ids >= {"scores"}
    assert parsed(write_report(tmp_path)).ids >= {"comparison", "runs"}


def test_a_report_is_written_again_in_place_and_leaves_nothing_half_made(tmp_path):
    folder = fake.write_run(tmp_path / "0", steps=5, status=None)
    write_report(folder)
    (folder / "report.html").write_text("old")
    write_report(folder)
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part")]


def test_the_command_prints_the_table_and_says_where_the_report_is(sweep, tmp_path, capsys):
    assert main([str(sweep), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "6 runs: 3 variants, 2 seeds" in printed
    assert "bigbird" in printed
    assert f"{tmp_path}/out/report.html" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.md",
        "report.csv",
        "figures",
    }


def test_several_runs_are_reported_on_together_above_them(tmp_path, capsys):
    for pattern in ("window", "random"):
        fake.write_run(tmp_path / pattern, pattern=pattern, steps=5, tokens=2000)
    assert main([str(tmp_path / "window"), str(tmp_path / "random")]) == 0
    assert "2 runs: 2 variants, 1 seed" in capsys.readouterr().out
    assert (tmp_path / "report.html").is_file()


def test_a_folder_without_runs_is_refused_with_exit_code_2(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no run in this folder")
    assert not list(tmp_path.iterdir())
