"""Runs that differ in their seed alone, put together, and named by what sets them apart from the others."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from omegaconf import OmegaConf

from longtag.report.pareto import Point, dominates
from longtag.report.runs import Run

SEED = "seed"
NOT_COMPARED = (SEED, "folder", "resume", "report", "hydra", "logger", "callbacks")
"""Options that say nothing of what was trained."""

DATA, EXPERIMENT = "data", "experiment"
CHOICES = ("pattern", DATA, EXPERIMENT)
"""Options whose values speak for themselves."""

LONGEST_VALUE = 18


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds of a group."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """None where no value is known."""
        known = [value for value in values if value is not None and np.isfinite(value)]
        return cls(sum(known) / len(known), min(known), max(known)) if known else None


@dataclass(frozen=True)
class Quality:
    """The figure by which runs are compared.

    key:      under which it is logged, such as test/f1_macro.
    of:       its value in a run.
    """

    key: str
    of: Callable[[Run], float | None]

    @property
    def larger_is_better(self) -> bool:
        return not self.key.endswith("loss")

    @property
    def name(self) -> str:
        return in_words(self.key)


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    task_options: what sets its task apart, by the name of the option.
    options: what sets it apart from the other groups of its task.
    settings: what goes with a choice among the options, such as `window=64` with pattern, in words.
    task:    its task in words; figures of different tasks are not compared.
    variant: the other options in words.
    pattern: those of the pattern in words.
    on_front: whether no group of its task beats it in quality, memory and speed together.
    """

    task_options: dict[str, str]
    options: dict[str, str]
    settings: dict[str, str]
    task: str
    variant: str
    pattern: str
    runs: Sequence[Run]
    on_front: bool = False

    def spread(self, figure: Callable[[Run], float | None]) -> Spread | None:
        return Spread.of(figure(run) for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """All that a report of several runs is drawn from."""

    runs: Sequence[Run]
    groups: Sequence[Group]
    quality: Quality

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(group.task for group in self.groups))

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(group.variant for group in self.groups))

    def of_task(self, task: str) -> list[Group]:
        return [group for group in self.groups if group.task == task]


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs into groups that differ in an option, named by that option, and look which are on the front."""
    names = _names_that_vary(runs)
    told_by = {name: choice for name in names if (choice := _choice_that_tells(name, names, runs))}
    of_task = [name for name in names if name not in told_by and _sets_task(name, runs)]
    members: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        members.setdefault(tuple(run.option(name) for name in names if name not in told_by), []).append(run)
    others = [name for name in names if name not in told_by and name not in of_task]
    groups = [_group(of_task, others, told_by, alike) for alike in members.values()]
    # Long values that differ in their middle alone.
    count = Counter((group.task, group.variant) for group in groups)
    groups = [
        replace(group, variant=f"{group.variant} ({group.runs[0].name})")
        if count[group.task, group.variant] > 1
        else group
        for group in groups
    ]
    quality = choose_quality(runs)
    groups = [replace(group, on_front=_is_on_front(group, groups, quality)) for group in groups]
    return Comparison(runs, groups, quality)


def choose_quality(runs: Sequence[Run]) -> Quality:
    """What most runs were told to monitor: of the test where any run has got that far, else the best so far."""
    monitors = Counter(run.option("monitor") or "val/f1_macro" for run in runs)
    monitor = monitors.most_common(1)[0][0]
    tested = monitor.replace("val/", "test/", 1)
    if any(run.last(tested) is not None for run in runs):
        return Quality(tested, lambda run: run.last(tested))
    return Quality(monitor, lambda run: run.best(monitor))


def in_words(key: str) -> str:
    """The key of a figure as a heading: test/f1_macro is `test F1 (macro)`."""
    split, _, name = key.partition("/")
    names = {"f1_macro": "F1 (macro)", "mcc": "Matthews correlation"}
    return f"{ {'val': 'validation', 'train': 'training'}.get(split, split) } {names.get(name, name.replace('_', ' '))}"


def _names_that_vary(runs: Sequence[Run]) -> list[str]:
    names = dict.fromkeys(name for run in runs for name in run.overrides if not _is_left_out(name))
    return [name for name in names if len({run.option(name) for run in runs if run.knows(name)}) > 1]


def _is_left_out(name: str) -> bool:
    return group_of(name) in NOT_COMPARED


def group_of(name: str) -> str:
    """The config group that an option chooses from or lies in."""
    return re.split(r"[.@/]", name)[0]


def _choice_that_tells(name: str, names: Sequence[str], runs: Sequence[Run]) -> str | None:
    """The choice that says an option as well: all runs with the same pattern have, say, the same pattern.window."""
    choice = group_of(name)
    if name == choice or choice not in names:
        return None
    values: dict[str, set[str]] = {}
    for run in runs:
        if run.knows(name):
            values.setdefault(run.option(choice), set()).add(run.option(name))
    return choice if all(len(found) == 1 for found in values.values()) else None


def _sets_task(name: str, runs: Sequence[Run]) -> bool:
    """Whether an option is one of the data, or chooses experiments of which each has data of its own."""
    if name != EXPERIMENT:
        return group_of(name) == DATA
    data_of: dict[str, set[str]] = {}
    for run in runs:
        if DATA in run.config:
            data_of.setdefault(run.option(name), set()).add(OmegaConf.to_yaml(run.config[DATA]))
    return sum(map(len, data_of.values())) == len(set().union(*data_of.values()))


def _group(of_task: Sequence[str], others: Sequence[str], told_by: Mapping[str, str], runs: Sequence[Run]) -> Group:
    """Runs that are alike, by the names of the options that set the task and the group apart."""
    task_options, options = ({name: runs[0].option(name) for name in names} for names in (of_task, others))
    given = {name: choice for name, choice in told_by.items() if name in runs[0].overrides}
    settings = {
        choice: ", ".join(
            f"{name.rsplit('.', 1)[-1]}={runs[0].option(name)}" for name in given if given[name] == choice
        )
        for choice in given.values()
    }
    variant = told(options)
    pattern = told(
        {"pattern": runs[0].option("pattern")} | {n: v for n, v in options.items() if group_of(n) == "pattern"}
    )
    return Group(task_options, options, settings, told(task_options), variant or pattern or runs[0].name, pattern, runs)


def told(options: Mapping[str, str]) -> str:
    """A chosen file by its own name, any other option with the last part of its; what is not known is left out."""
    return ", ".join(
        shortened(value) if name in CHOICES else f"{name.rsplit('.', 1)[-1]}={shortened(value)}"
        for name, value in options.items()
        if value
    )


def shortened(value: str) -> str:
    """Beginning and end of a long value; the tables have it whole."""
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 8]}…{value[-7:]}"


def _is_on_front(group: Group, groups: Sequence[Group], quality: Quality) -> bool:
    point = _point(group, quality)
    rivals = [_point(other, quality) for other in groups if other.task == group.task]
    return point is not None and not any(dominates(rival, point) for rival in rivals if rival is not None)


def _point(group: Group, quality: Quality) -> Point | None:
    """None where a figure is not known."""
    good, memory, speed = (
        group.spread(figure) for figure in (quality.of, lambda run: run.peak_memory, lambda run: run.tokens_per_second)
    )
    if good is None or memory is None or speed is None:
        return None
    return Point(good.mean if quality.larger_is_better else -good.mean, -memory.mean, speed.mean)
