"""What a report says, before it is written as a page, as Markdown or as CSV."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from longtag.report.figures.calibration import reliability_diagram
from longtag.report.figures.classes import class_scores, f1_by_class
from longtag.report.figures.confusion import confusion_matrix
from longtag.report.figures.distance import accuracy_by_distance
from longtag.report.figures.learning import learning_curve, learning_curves
from longtag.report.figures.memory import memory_of_run, memory_per_step
from longtag.report.figures.patterns import pattern_pictures
from longtag.report.figures.picture import Picture
from longtag.report.figures.presets import memory_presets
from longtag.report.figures.scaling import lines_over_tokens, step_against_tokens
from longtag.report.figures.stretches import example_stretches
from longtag.report.figures.trade_off import trade_off
from longtag.report.groups import SEED, Comparison, compare
from longtag.report.runs import Run
from longtag.report.style import looks, number
from longtag.report.tables import Table, as_csv, comparison_table, runs_table, scores_table, table_as_csv, tasks_table
from longtag.report.tables import unfinished_table as unfinished

FACTS = ("data", "pattern", "implementation", "tokens", "parameters", "device", "torch")
MOST_VALUES = 3


@dataclass(frozen=True)
class Section:
    """heading:  empty where the report has one task only. pictures: figures to draw. images: PNG files as they are."""

    heading: str
    pictures: Sequence[Picture]
    images: Sequence[Path] = ()


@dataclass(frozen=True)
class Document:
    """title:  of the page.
    lead:   one sentence on what is reported.
    facts:  what holds for all runs, by name.
    table:  the first thing to read.
    csv:    the same with every digit.
    more:   further tables, shown after the figures.
    by_task: the tasks side by side, shown before everything else; None where there is one only.
    """

    title: str
    lead: str
    facts: dict[str, str]
    table: Table
    csv: str
    sections: Sequence[Section]
    more: Sequence[Table] = field(default_factory=list)
    problems: Table | None = None
    by_task: Table | None = None

    @property
    def tables(self) -> list[Table]:
        return [table for table in (self.by_task, self.table, *self.more, self.problems) if table]

    @property
    def pictures(self) -> list[Picture]:
        return [picture for section in self.sections for picture in section.pictures]


def report_of_run(run: Run) -> Document:
    """Curves, memory, scores of classes, calibration, examples and the pattern of one run."""
    table = scores_table(run)
    drawn = (
        learning_curve(run),
        memory_of_run(run),
        confusion_matrix(run),
        class_scores(run),
        accuracy_by_distance(compare([run]).groups, looks(compare([run]).variants)),
        reliability_diagram(run),
        example_stretches(run),
        pattern_pictures([(run.option("pattern"), run)]),
    )
    return Document(
        title=f"Run {run.name}",
        lead=f"{run.status}, {_count(run.steps, 'step')}",
        facts=_facts([run]) | ({"options": run.command} if run.overrides else {}),
        table=table,
        csv=table_as_csv(table),
        sections=[Section("", [picture for picture in drawn if picture], run.memory_timelines)],
        problems=unfinished([run]),
    )


def report_of_runs(runs: Sequence[Run], name: str) -> Document:
    """One comparison of several runs, a section for each task that their options set apart."""
    comparison = compare(runs)
    sections = [_section(comparison, task) for task in comparison.tasks]
    shown = pattern_pictures([(group.pattern, group.runs[0]) for group in comparison.groups])
    if shown:
        sections.append(Section("All tasks" if len(sections) > 1 else "", [shown]))
    counts = {"variant": len(comparison.variants), "task": len(comparison.tasks)}
    counts["seed"] = max(1, len({run.option(SEED) for run in runs if run.knows(SEED)}))
    counted = [_count(count, what) for what, count in counts.items() if what != "task" or count > 1]
    return Document(
        title=f"Comparison {name}",
        lead=f"{_count(len(runs), 'run')}: {', '.join(counted)}",
        facts=_facts(runs),
        table=comparison_table(comparison),
        csv=as_csv(comparison),
        sections=[section for section in sections if section.pictures],
        more=[runs_table(comparison)],
        problems=unfinished(runs),
        by_task=tasks_table(comparison),
    )


def _section(comparison: Comparison, task: str) -> Section:
    groups, look_of = comparison.of_task(task), looks(comparison.variants)
    monitor = comparison.quality.key.replace("test/", "val/", 1)
    drawn = (
        trade_off(groups, comparison.quality, look_of),
        memory_presets(groups),
        step_against_tokens(lines_over_tokens(comparison.groups), task),
        learning_curves(groups, monitor, look_of),
        accuracy_by_distance(groups, look_of),
        f1_by_class(groups),
        memory_per_step(groups, look_of),
    )
    pictures = [picture for picture in drawn if picture]
    if len(comparison.tasks) == 1:
        return Section("", pictures)
    file_of_task = re.sub(r"[^A-Za-z0-9]+", "_", task).strip("_")
    return Section(task, [replace(picture, name=f"{picture.name}-{file_of_task}") for picture in pictures])


def _facts(runs: Sequence[Run]) -> dict[str, str]:
    """What is known of all runs; where they differ, the values, or how many there are."""
    facts = {}
    for name in FACTS:
        values = dict.fromkeys(_fact(run, name) for run in runs)
        values.pop("", None)
        if values:
            facts[name] = "; ".join(values) if len(values) <= MOST_VALUES else f"{len(values)} different"
    return facts


def _fact(run: Run, name: str) -> str:
    value = str(run.summary.get(name, run.option(name)))
    return f"{int(value):,}" if value.isdecimal() else value


def _count(count: int, what: str) -> str:
    return f"{number(count)} {what}{'' if count == 1 else 's'}"
