"""The comparison of a sweep, where its runs log: one W&B run in their group, or TensorBoard in the sweep's folder."""

import json
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import wandb
from omegaconf import DictConfig, OmegaConf

from longtag.folder import write_json
from longtag.loggers.tensorboard import tensorboard_logger
from longtag.loggers.wandb import quiet, starts_online, wandb_logger
from longtag.report.document import Document
from longtag.report.media import add_to_tensorboard, as_wandb
from longtag.report.tables import UNFINISHED
from longtag.report.write import describe, write_document
from longtag.sweep.record import Status, SweepRecord

STATE = "logged_report.json"


@dataclass(frozen=True)
class _State:
    """run_id: of the W&B run that holds the report. step: how many times it was logged before."""

    run_id: str
    step: int


Log = Callable[[Path, DictConfig, Document, Mapping[str, bytes], _State], str]


def report_sweep(folder: Path) -> list[str]:
    """Write the report of a sweep into its folder, then log it; what fails in that is told and raises nothing.

    Returns:
        A line for each place where the report is, or why it is not there.

    Raises:
        UsageError: there is no run in the folder.
        OSError: it cannot be written to.
    """
    document = describe([folder])
    pngs = write_document(document, folder)
    try:
        places = log_comparison(folder, document, pngs)
    except Exception as error:
        again = f"python -m longtag.report {folder} --log tries again"
        places = [f"the report is not logged: {type(error).__name__}: {error}; {again}"]
    return [f"report: {folder / 'report.html'}", *places]


def log_comparison(folder: Path, document: Document, pngs: Mapping[str, bytes]) -> list[str]:
    """Log the figures and tables of a sweep's report where the sweep logs; given again, it goes on in the same W&B run.

    folder:   of the sweep.
    document: its report.
    pngs:     the figures of the report, by name.

    Returns:
        A line for each place; none where the sweep logs neither to W&B nor to TensorBoard.
    """
    loggers = _loggers(folder)
    if not loggers:
        return []
    state = _next_state(folder)
    return [log(folder, options, document, pngs, state) for log, options in loggers]


def _loggers(folder: Path) -> list[tuple[Log, DictConfig]]:
    """The loggers of the sweep's last start; those of its runs where the sweeper did not write the sweep's config."""
    for path in (folder / "multirun.yaml", *sorted(folder.glob("*/.hydra/config.yaml"))):
        if path.is_file():
            config = OmegaConf.load(path)
            nodes = (OmegaConf.select(config, "logger") or {}).values()
            return [(LOGS[node._target_], node) for node in nodes if node._target_ in LOGS]
    return []


def _next_state(folder: Path) -> _State:
    """Written down before anything is logged, so that what breaks off there goes on in the same W&B run."""
    path = folder / STATE
    before = _State(**json.loads(path.read_text())) if path.is_file() else _State(secrets.token_hex(4), -1)
    state = _State(before.run_id, before.step + 1)
    write_json(path, asdict(state))
    return state


def _log_to_wandb(
    folder: Path, options: DictConfig, document: Document, pngs: Mapping[str, bytes], state: _State
) -> str:
    record = SweepRecord.read(folder)
    online = starts_online(options.get("mode", "auto"))
    with wandb.init(
        project=options.get("project"),
        entity=options.get("entity"),
        group=options.get("group") or record.group,
        name=record.group,
        job_type="report",
        id=state.run_id,
        resume="allow",
        # The process that writes the file may have been started elsewhere.
        dir=folder.resolve(),
        mode=None if online else "offline",
        settings=quiet(),
    ) as run:
        run.config.update({"command": record.task, "facts": document.facts}, allow_val_change=True)
        media = as_wandb(document, pngs)
        if state.step and document.problems is None:
            # Else W&B would go on showing the jobs that had failed the last time.
            media[f"report/{UNFINISHED}"] = wandb.Table(columns=["run"], data=[])
        run.log(media, step=state.step)
        counts = Counter(job.status for job in record.jobs)
        run.summary.update({f"jobs/{status}": counts[status] for status in get_args(Status)})
        return f"report in W&B: {run.url}" if online else f"report for W&B: wandb sync {folder / 'wandb'}"


def _log_to_tensorboard(
    folder: Path, options: DictConfig, document: Document, pngs: Mapping[str, bytes], state: _State
) -> str:
    writer = tensorboard_logger(folder=folder, run_id=state.run_id).experiment
    try:
        add_to_tensorboard(writer, document, pngs, state.step)
    finally:
        writer.close()
    return f"report in TensorBoard: tensorboard --logdir {folder}"


LOGS: dict[str, Log] = {
    f"{wandb_logger.__module__}.{wandb_logger.__qualname__}": _log_to_wandb,
    f"{tensorboard_logger.__module__}.{tensorboard_logger.__qualname__}": _log_to_tensorboard,
}
"""How a report gets to where the logger of a config sends the figures of a run."""
