"""Read the folders of runs and sweeps: what was asked for, what was logged, how it ended."""

import fcntl
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from longtag.errors import UsageError

PEAK_MEMORY = ("memory/peak_allocated_gib", "memory/peak_rss_gib")
SPEED = "throughput/tokens_per_second"
STEP_MS = "throughput/step_ms"
EVALUATION = ("class_names", "labelled", "predicted", "right", "confusion", "calibration", "stretches")
"""What the figures of a test are drawn from."""


@dataclass(frozen=True)
class Series:
    """A figure over the run.

    steps:  (n,) int64, optimizer steps done when it was logged, ascending.
    values: (n,) float64, NaN where it was not finite.
    """

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Run:
    """One run, or a job of a sweep that never came to have a folder.

    name:      what to call it: its folder's name, or the job's number.
    folder:    None for a job without one.
    status:    completed, failed, interrupted, running, pending, or unfinished where nothing tells.
    error:     what ended a failed run.
    overrides: options given on the command line, by name.
    choices:   the chosen file of each config group.
    config:    the composed config.
    summary:   summary.json, empty where there is none yet.
    series:    every figure of metrics.jsonl by its key.
    evaluation: figures/evaluation.json, None where there is none.
    """

    name: str
    folder: Path | None
    status: str
    error: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str | None] = field(default_factory=dict)
    config: DictConfig = field(default_factory=lambda: OmegaConf.create({}))
    summary: Mapping[str, Any] = field(default_factory=dict)
    series: Mapping[str, Series] = field(default_factory=dict)
    evaluation: Mapping[str, Any] | None = None

    def option(self, name: str) -> str:
        """The value of an option or of a config group as one would type it; empty where it is not known."""
        if name in self.overrides:
            return self.overrides[name]
        if self.choices.get(name):
            return str(self.choices[name])
        try:
            value = OmegaConf.select(self.config, name)
        except OmegaConfBaseException:
            return ""
        return "" if value is None else str(value)

    def knows(self, name: str) -> bool:
        """Whether `option` can say it: of a job that was never started only what was given is known."""
        return bool(self.config) or name in self.overrides

    @property
    def command(self) -> str:
        """The options as they were given."""
        return " ".join(f"{name}={value}" for name, value in self.overrides.items())

    def last(self, key: str) -> float | None:
        """The last finite value of a figure."""
        value = self.summary.get(key)
        if isinstance(value, int | float) and np.isfinite(value):
            return float(value)
        values = self._finite(key)
        return float(values[-1]) if len(values) else None

    def best(self, key: str) -> float | None:
        values = self._finite(key)
        return None if not len(values) else float(values.min() if key.endswith("loss") else values.max())

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return int(self.series["train/loss"].steps[-1]) if "train/loss" in self.series else 0

    @cached_property
    def memory_key(self) -> str | None:
        """Under which key its peak memory was logged: of the GPU, else of the process."""
        return next((key for key in PEAK_MEMORY if len(self._finite(key))), None)

    @property
    def peak_memory(self) -> float | None:
        """Of all steps, in GiB."""
        return None if self.memory_key is None else float(self._finite(self.memory_key).max())

    def at_peak(self, key: str) -> float | None:
        """What a figure was in the step that took the most memory."""
        if self.memory_key is None or key not in self.series:
            return None
        peaks, figures = self.series[self.memory_key], self.series[key]
        values = figures.values[figures.steps == peaks.steps[np.nanargmax(peaks.values)]]
        return float(values[-1]) if len(values) and np.isfinite(values[-1]) else None

    @property
    def step_ms(self) -> float | None:
        """Time of the median step, in ms."""
        values = self._finite(STEP_MS)
        return float(np.median(values)) if len(values) else None

    @property
    def tokens_per_second(self) -> float | None:
        """Of the median step: the first ones compile and fill caches."""
        values = self._finite(SPEED)
        return float(np.median(values)) if len(values) else None

    @property
    def memory_timelines(self) -> list[Path]:
        """Pictures of the memory within a step, which debug=memory and a run out of memory leave."""
        figures = self.folder / "figures" if self.folder else None
        return (
            [] if figures is None else [*sorted(figures.glob("memory_step_*.png")), *figures.glob("out_of_memory.png")]
        )

    def _finite(self, key: str) -> np.ndarray:
        values = self.series[key].values if key in self.series else np.empty(0)
        return values[np.isfinite(values)]


def read(folders: Sequence[Path]) -> list[Run]:
    """The runs of some folders: of a run, of a sweep, or of anything that has runs below it.

    Raises:
        UsageError: a folder that is not there, or has no run in it.
    """
    runs: list[Run] = []
    for folder in folders:
        found = _read_folder(folder)
        if not found:
            what = "no run in this folder" if folder.is_dir() else "no such folder"
            raise UsageError(
                f"{folder}: {what}; expected one with metrics.jsonl and .hydra/ as train.py leaves it, or a sweep's"
            )
        runs += found
    return runs


def is_run(folder: Path) -> bool:
    return (folder / ".hydra" / "config.yaml").is_file() or (folder / "summary.json").is_file()


def read_run(folder: Path, job: Mapping[str, Any] | None = None) -> Run:
    """A run from its folder, of which any part may be missing.

    job: what the sweep says of it, which knows more of a run that was ended from outside.
    """
    summary = _json(folder / "summary.json") or {}
    hydra = _yaml(folder / ".hydra" / "hydra.yaml")
    overrides = _yaml(folder / ".hydra" / "overrides.yaml") or (job or {}).get("overrides") or []
    config = _yaml(folder / ".hydra" / "config.yaml")
    return Run(
        name=folder.resolve().name,
        folder=folder,
        status=(job or {}).get("status") or _status(folder, summary),
        error=(job or {}).get("error") or summary.get("error"),
        overrides=_by_name(overrides),
        choices=OmegaConf.select(hydra, "hydra.runtime.choices") or {} if isinstance(hydra, DictConfig) else {},
        config=config if isinstance(config, DictConfig) else OmegaConf.create({}),
        summary=summary,
        series=_read_series(folder / "metrics.jsonl"),
        evaluation=_json(folder / "figures" / "evaluation.json", *EVALUATION),
    )


def _read_folder(folder: Path) -> list[Run]:
    if is_run(folder):
        return [read_run(folder)]
    sweep = _json(folder / "sweep.json")
    if sweep is not None:
        return [_read_job(folder, job) for job in sweep.get("jobs", [])]
    return [read_run(path.parent) for path in sorted(folder.glob("**/.hydra"), key=_natural) if is_run(path.parent)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Job 2 before job 10."""
    return [(int(digits or 0), text) for digits, text in re.findall(r"(\d*)(\D+|$)", str(path))]


def _read_job(sweep: Path, job: Mapping[str, Any]) -> Run:
    folder = sweep / str(job.get("folder") or job["number"])
    if is_run(folder):
        return read_run(folder, job)
    return Run(
        name=str(job["number"]),
        folder=None,
        status=job["status"],
        error=job.get("error"),
        overrides=_by_name(job.get("overrides") or []),
    )


def _status(folder: Path, summary: Mapping[str, Any]) -> str:
    if summary.get("status") in ("completed", "failed"):
        return summary["status"]
    return "running" if _is_locked(folder / ".lock") else summary.get("status", "unfinished")


def _is_locked(path: Path) -> bool:
    """Whether the process that runs in a folder still holds its lock; one that was killed leaves the file alone."""
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _by_name(overrides: Sequence[str]) -> dict[str, str]:
    """Overrides as Hydra writes them, ``+`` and ``~`` left out."""
    pairs = (str(override).lstrip("+~").partition("=") for override in overrides)
    return {name: value for name, _, value in pairs}


def _read_series(path: Path) -> dict[str, Series]:
    columns: dict[str, tuple[list[int], list[float]]] = {}
    if not path.is_file():
        return {}
    with path.open() as lines:
        for line in lines:
            try:
                figures = json.loads(line)
            except ValueError:  # the line that a run is writing, or that a crash cut off
                continue
            if not isinstance(figures, dict):
                continue
            step = figures.pop("step", None)
            figures.pop("time", None)
            if step is None:
                continue
            for key, value in figures.items():
                steps, values = columns.setdefault(key, ([], []))
                steps.append(step + 1)
                values.append(np.nan if value is None else value)
    return {key: Series(np.array(steps), np.array(values, dtype=float)) for key, (steps, values) in columns.items()}


def _json(path: Path, *needed: str) -> dict[str, Any] | None:
    """A mapping with the entries that are needed; None where there is none, or only a piece of it."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.keys() >= set(needed) else None


def _yaml(path: Path) -> Any:
    try:
        return OmegaConf.load(path)
    except (OSError, yaml.YAMLError):
        return None
