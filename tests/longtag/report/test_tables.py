"""The numbers of the tables are those of the runs."""

import csv
import io

import pytest
from rich.console import Console

from longtag.report.groups import compare
from longtag.report.runs import read
from longtag.report.tables import (
    as_csv,
    as_markdown,
    comparison_table,
    print_table,
    runs_table,
    scores_table,
    tasks_table,
    unfinished_table,
)

from . import fake


def test_a_row_tells_mean_and_range_over_the_seeds(sweep):
    comparison = compare(read([sweep]))
    table = comparison_table(comparison)
    assert table.heads[:4] == ["pattern", "runs", "Pareto front", "test F1 (macro)"]
    row = dict(zip(table.heads, table.rows[0], strict=True))
    scores = [run.summary["test/f1_macro"] for run in comparison.groups[0].runs]
    assert row["pattern"].text == "window"
    assert row["runs"].text == "2\N{NO-BREAK SPACE}completed"
    assert row["test F1 (macro)"].value == pytest.approx(sum(scores) / 2)
    assert row["test F1 (macro)"].line == f"{sum(scores) / 2:.4f} ({min(scores):.4f} to {max(scores):.4f})"
    assert row["steps"].line == "300"


def test_the_csv_has_every_digit(sweep):
    comparison = compare(read([sweep]))
    (first, *_) = csv.DictReader(io.StringIO(as_csv(comparison)))
    scores = [run.summary["test/f1_macro"] for run in comparison.groups[0].runs]
    assert float(first["test F1 (macro)"]) == pytest.approx(sum(scores) / 2, rel=1e-12)
    assert float(first["test F1 (macro), lowest"]) == min(scores)
    assert float(first["test F1 (macro), highest"]) == max(scores)
    assert (first["pattern"], first["runs"], first["completed"]) == ("window", "2", "2")


def test_every_run_has_a_row_of_its_own(sweep):
    table = runs_table(compare(read([sweep])))
    assert [row[0].text for row in table.rows] == ["0", "1", "2", "3", "4", "5"]
    assert [row[table.heads.index("seed")].text for row in table.rows] == ["0", "1"] * 3


def test_figures_that_are_absent_are_dashes_and_columns_without_any_are_left_out(tmp_path):
    fake.write_run(tmp_path / "0", pattern="window")
    fake.write_run(tmp_path / "1", pattern="random", steps=0, status="failed", error="broken")
    table = comparison_table(compare(read([tmp_path])))
    failed = dict(zip(table.heads, table.rows[1], strict=True))
    assert (failed["test F1 (macro)"].line, failed["tokens/s"].line) == ("-", "-")
    fake.write_run(tmp_path / "other" / "0", status=None)
    assert "test F1 (macro)" not in comparison_table(compare(read([tmp_path / "other"]))).heads


def test_what_did_not_complete_is_listed_with_its_error(tmp_path):
    trace = "Traceback:\n  a | b\ntorch.OutOfMemoryError: 28610 GiB"
    fake.write_run(tmp_path / "0")
    fake.write_run(tmp_path / "1", pattern="dilated", steps=0, status="failed", error=trace)
    table = unfinished_table(read([tmp_path]))
    assert table is not None
    assert [[cell.text for cell in row] for row in table.rows] == [["1", "failed", "pattern=dilated seed=0", trace]]
    assert as_markdown(table).splitlines()[2] == (
        "| 1 | failed | pattern=dilated seed=0 | torch.OutOfMemoryError: 28610 GiB |"
    )
    assert unfinished_table(read([tmp_path / "0"])) is None


def test_scores_of_one_run_stand_side_by_side(tmp_path):
    (run,) = read([fake.write_run(tmp_path / "0")])
    table = scores_table(run)
    rows = {row[0].text: [cell.value for cell in row[1:]] for row in table.rows}
    assert rows["accuracy"] == [
        run.series["val/accuracy"].values[-1],
        run.series["val/accuracy"].values.max(),
        run.summary["test/accuracy"],
    ]
    assert "F1 of RNA -" in rows


def test_what_is_piped_is_plain_and_not_cut(sweep):
    console = Console(record=True, file=io.StringIO(), highlight=False)
    print_table(comparison_table(compare(read([sweep]))), console)
    printed = console.export_text()
    assert "window" in printed
    assert "…" not in printed
    assert printed.replace("\N{NO-BREAK SPACE}", " ").isascii()


def test_tasks_stand_side_by_side_with_the_settings_of_each_pattern_below_its_name(tmp_path):
    figures = {"near": (0.9, 2.0, 100e3), "far": (0.6, 4.0, 300e3)}
    for task, values in figures.items():
        for pattern in ("window", "random"):
            given = [f"data.track={task}", *(["pattern.window=64"] if pattern == "window" else [])]
            fake.write_run(tmp_path / f"{task} {pattern}", pattern=pattern, overrides=given, figures=values)
    comparison = compare(read([tmp_path]))
    table = tasks_table(comparison)
    assert table is not None
    assert table.heads == ["pattern", "track=far", "track=near", "peak memory, GiB", "tokens/s"]
    rows = {row[0].line: row for row in table.rows}
    assert list(rows) == ["random", "window (window=64)"]
    (far,) = (run for run in comparison.runs if run.name == "far window")
    assert rows["window (window=64)"][1].value == far.summary["test/f1_macro"]
    memory = rows["random"][3]
    assert isinstance(memory.value, float)
    assert 2.9 < memory.value < 3.1
    assert " to 4.0" in memory.note


def test_one_task_needs_no_table_of_tasks(sweep):
    assert tasks_table(compare(read([sweep]))) is None
