"""The tables of a report: the numbers first, then how they are written."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from longtag.report.groups import Comparison, Group, Quality, Spread, in_words
from longtag.report.runs import Run
from longtag.report.style import three_digits

UNFINISHED = "unfinished"
PIPED_WIDTH = 200
"""Characters of a line where the output is no terminal, which knows its own."""


@dataclass(frozen=True)
class Cell:
    """text: what is read. value: what is sorted by, a number or the text itself. note: smaller, below the text."""

    text: str
    value: float | str = ""
    note: str = ""

    @property
    def line(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


@dataclass(frozen=True)
class Table:
    """name: a short one for files and W&B. caption: a sentence. rows: as many cells each as there are heads."""

    name: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Measure:
    """A figure of a run that is compared: its heading, where it is from, and its digits after the point, if fixed."""

    head: str
    of: Callable[[Run], float | None]
    digits: int | None = None


def measures(quality: Quality) -> list[Measure]:
    """Quality first, then what it costs."""
    scores = dict.fromkeys([quality.key, "test/accuracy", "test/loss"])
    monitored = quality.key.replace("test/", "val/", 1)
    return [
        *(Measure(in_words(key), lambda run, key=key: run.last(key), 4) for key in scores if key.startswith("test/")),
        Measure(f"best {in_words(monitored)}", lambda run: run.best(monitored), 4),
        Measure("peak memory, GiB", lambda run: run.peak_memory),
        Measure("tokens/s", lambda run: run.tokens_per_second),
        Measure("steps", lambda run: run.steps),
    ]


def comparison_table(comparison: Comparison) -> Table:
    """A row for each group; columns that nobody has a figure for are left out."""
    columns = [
        measure
        for measure in measures(comparison.quality)
        if any(group.spread(measure.of) for group in comparison.groups)
    ]
    options = _options(comparison)
    rows = []
    for group in comparison.groups:
        values = group.task_options | group.options
        names = [Cell(values[name], values[name], group.settings.get(name, "")) for name in options]
        names = names or [_text(group.variant)]
        front = Cell("yes", 1.0) if group.on_front else Cell("", 0.0)
        figures = [_spread_cell(group.spread(column.of), column.digits) for column in columns]
        rows.append([*names, _text(status_of(group)), front, *figures])
    return Table(
        "comparison",
        "Runs that differ in their seed alone are one row: the mean, and the range where there is one.",
        [*(options or ["run"]), "runs", "Pareto front", *(column.head for column in columns)],
        rows,
    )


def tasks_table(comparison: Comparison) -> Table | None:
    """A row for each variant, with its quality in every task side by side; None where there is one task only."""
    if len(comparison.tasks) == 1:
        return None
    alike: dict[tuple[str, ...], list[Group]] = {}
    for group in comparison.groups:
        alike.setdefault(tuple(group.options.values()), []).append(group)
    *_, memory, speed, _ = measures(comparison.quality)
    rows = []
    for groups in alike.values():
        first, of_task = groups[0], {group.task: group for group in groups}
        names = [Cell(value, value, first.settings.get(name, "")) for name, value in first.options.items()]
        scores = [of_task[task].spread(comparison.quality.of) if task in of_task else None for task in comparison.tasks]
        costs = [Spread.of(cost.of(run) for group in groups for run in group.runs) for cost in (memory, speed)]
        rows.append([*(names or [_text(first.variant)]), *(_spread_cell(score, 4) for score in scores)])
        rows[-1] += [_spread_cell(spread, None) for spread in costs]
    return Table(
        "tasks",
        f"{comparison.quality.name.capitalize()} in each task; memory and speed over all of them: the mean, and the "
        "range where there is one.",
        [*(comparison.groups[0].options or ["variant"]), *comparison.tasks, memory.head, speed.head],
        rows,
    )


def runs_table(comparison: Comparison) -> Table:
    """A row for each run."""
    columns = measures(comparison.quality)
    options = _options(comparison)
    rows = [
        [
            _text(run.name),
            *(_text(run.option(name)) for name in options),
            _text(str(run.summary.get("seed", run.option("seed")))),
            _text(run.status),
            *(_spread_cell(Spread.of([column.of(run)]), column.digits) for column in columns),
        ]
        for run in comparison.runs
    ]
    heads = ["run", *options, "seed", "status", *(column.head for column in columns)]
    return Table("runs", "Every run by itself.", heads, rows)


def unfinished_table(runs: Sequence[Run]) -> Table | None:
    """The runs that did not complete, and why where it is known."""
    rows = [
        [
            _text(run.name),
            _text(run.status),
            _text(run.command),
            _text((run.error or "").strip()),
        ]
        for run in runs
        if run.status != "completed"
    ]
    heads = ["run", "status", "options", "error"]
    return Table(UNFINISHED, "Runs that failed, were stopped, or still run.", heads, rows) if rows else None


def scores_table(run: Run) -> Table:
    """Every score of validation and test, and speed and memory, of one run."""
    keys = dict.fromkeys([*run.summary, *run.series])
    names = dict.fromkeys(key.split("/", 1)[1] for key in keys if key.startswith(("val/", "test/")))
    rows = []
    for name in names:
        figures = run.last(f"val/{name}"), run.best(f"val/{name}"), run.last(f"test/{name}")
        label = in_words(f"val/{name}").removeprefix("validation ").replace("f1/", "F1 of ")
        rows.append([_text(label), *(_spread_cell(Spread.of([figure]), 4) for figure in figures)])
    heads = ["score", "validation, last", "validation, best", "test, best checkpoint"]
    return Table("scores", "Scores of the validation and the test blocks.", heads, rows)


def as_csv(comparison: Comparison) -> str:
    """A line for each group: its options, how many runs it has, and mean, lowest and highest of every figure."""
    columns, options = measures(comparison.quality), _options(comparison)
    choices = list(dict.fromkeys(choice for group in comparison.groups for choice in group.settings))
    lines: list[list[Any]] = []
    for group in comparison.groups:
        values = group.task_options | group.options
        line: list[Any] = [*(values[name] for name in options), *(group.settings.get(name, "") for name in choices)]
        line += [group.variant, len(group.runs)]
        line += [sum(run.status == "completed" for run in group.runs), int(group.on_front)]
        for column in columns:
            spread = group.spread(column.of)
            line += ["", "", ""] if spread is None else [spread.mean, spread.low, spread.high]
        lines.append(line)
    figures = [f"{column.head}{what}" for column in columns for what in ("", ", lowest", ", highest")]
    settings = [f"settings of {name}" for name in choices]
    return _csv([*options, *settings, "variant", "runs", "completed", "on Pareto front", *figures], lines)


def table_as_csv(table: Table) -> str:
    return _csv(table.heads, [[cell.value for cell in row] for row in table.rows])


def as_markdown(table: Table) -> str:
    rows = [[cell.line for cell in row] for row in table.rows]
    lines = [list(table.heads), ["---"] * len(table.heads), *rows]
    return "\n".join("| " + " | ".join(_one_line(text) for text in line) + " |" for line in lines) + "\n"


def print_table(table: Table, console: Console | None = None) -> None:
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    grid = Grid(*table.heads, box=box.ASCII2)
    for row in table.rows:
        grid.add_row(*("\n".join(filter(None, (cell.text, cell.note))) for cell in row))
    console.print(grid, markup=False)


def _options(comparison: Comparison) -> list[str]:
    """The names of what sets groups apart, those of the task first."""
    first = comparison.groups[0]
    return [*first.task_options, *first.options]


def status_of(group: Group) -> str:
    """How many runs of a group ended how, such as `2 completed, 1 failed`."""
    found = dict.fromkeys(run.status for run in group.runs)
    return ", ".join(f"{sum(run.status == status for run in group.runs)}\N{NO-BREAK SPACE}{status}" for status in found)


def _spread_cell(spread: Spread | None, digits: int | None) -> Cell:
    if spread is None:
        return Cell("-", "")
    written = (lambda value: f"{value:.{digits}f}") if digits is not None else three_digits
    mean, low, high = (written(value) for value in (spread.mean, spread.low, spread.high))
    return Cell(mean, spread.mean, f"{low} to {high}" if low != high else "")


def _text(text: str) -> Cell:
    return Cell(text, text)


def _csv(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(lines)
    return out.getvalue()


def _one_line(text: str) -> str:
    """A cell of Markdown: the last line of a traceback says what happened."""
    lines = text.strip().splitlines()
    return lines[-1].replace("|", "\\|") if lines else ""
