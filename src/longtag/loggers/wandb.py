"""Weights & Biases: offline unless the user is logged in; a folder that is resumed continues its run."""

import contextlib
import math
import netrc
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from wandb.sdk.mailbox import MailboxClosedError

from longtag.errors import UsageError
from longtag.folder import sweep_of

Mode = Literal["auto", "online", "offline"]

STEP = "trainer/global_step"
TOKENS = "throughput/tokens_seen"
OVER_TOKENS = ("train/", "val/")
AFTER_TRAINING = ("test/", "report/")
LONGEST_PAUSE_S = 1.0


class BackgroundWandbLogger(WandbLogger):
    """Lightning's logger, with a thread of its own: handing a step to W&B takes a millisecond, which the device would
    idle through. The thread waits for half of a step: by then the host has given the device the next one and waits for
    it. Before, it would take the interpreter from what the device waits for.

    W&B's step is the optimizer step, so that what is logged of one step is one row, and a run that goes on adds rows
    behind those that there are. What is logged after training joins the row of the last step: in a row of its own it
    would have the place of the next step, were the run to go on, and W&B drops what comes for a place that is taken.
    Charts of training and validation are drawn over the tokens seen, so that runs
    with batches of different sizes can be compared; all others over the step.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wandb")
        self._last_step: int | None = None
        self._last_row: Future[None] | None = None
        self._last_time = math.inf
        self._names: set[str] = set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self._last_row is not None and self._last_row.done():
            self._last_row.result()  # raises what the thread has raised
        now = time.perf_counter()
        pause, self._last_time = min(max(0.0, (now - self._last_time) / 2), LONGEST_PAUSE_S), now
        self._last_row = self._thread.submit(self._send, dict(metrics), step, now + pause)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._last_row is not None:
            self._last_row.result()
        super().finalize(status)

    def _send(self, metrics: dict[str, Any], step: int | None, not_before: float) -> None:
        time.sleep(max(0.0, not_before - time.perf_counter()))
        run = self.experiment
        new = metrics.keys() - self._names
        self._names |= new
        with unless_gone():
            if TOKENS in self._names:
                for name in new:
                    if name.startswith(OVER_TOKENS):
                        run.define_metric(name, step_metric=TOKENS, step_sync=True)
            if step is None:
                run.log(metrics)
            else:
                row = self._row(metrics, step)
                run.log({**metrics, STEP: row}, step=row)

    def _row(self, metrics: Mapping[str, Any], step: int) -> int:
        if self._last_step == step - 1 and any(name.startswith(AFTER_TRAINING) for name in metrics):
            return step - 1
        self._last_step = step
        return step


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """Leave out what is for W&B, with a warning, once the process that W&B runs beside this one has ended.

    Slurm and systemd send SIGTERM to all processes of a job: this one saves its checkpoint and leaves with the exit
    code of an interrupted run, and must not fail because the other one left first. The run's folder has everything.
    """
    try:
        yield
    except (ConnectionError, MailboxClosedError):
        warnings.warn(
            "W&B's own process has ended, and the rest of this start goes to the run's folder alone; the last rows "
            "may be missing in W&B",
            stacklevel=3,
        )


def quiet() -> wandb.Settings:
    """Settings for `wandb.init`, which writes what it is given besides into them: they are for one run."""
    return wandb.Settings(silent=True, console="off")


def finish() -> None:
    """Close the run that is open, if there is one, and wait until all of it is written or sent."""
    with unless_gone():
        wandb.finish()


def wandb_logger(
    *,
    folder: Path,
    run_id: str,
    project: str = "longtag",
    entity: str | None = None,
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    mode: Mode = "auto",
) -> WandbLogger:
    """A logger whose run is kept under ``folder/wandb``.

    Args:
        folder: the folder of the run.
        run_id: the id of the W&B run; given again, the same run continues. ``wandb agent`` gives runs ids of its own,
            and W&B takes those whatever it is told; ``version`` of the logger is the one that holds.
        project: the W&B project.
        entity: the W&B user or team; None for the default of the account.
        name: the name shown in W&B; None for the name of the folder, behind that of its sweep.
        group: the group of runs that this one belongs to; None for the sweep.
        tags: tags to filter runs by.
        mode: ``auto`` is online when W&B credentials are found and offline otherwise; an offline run is sent later
            with ``wandb sync``.

    Raises:
        UsageError: online without credentials, where nobody can be asked for them.
    """
    if mode == "online" and not is_logged_in() and not sys.stdin.isatty():
        raise UsageError(
            "mode=online: no W&B credentials were found; run `wandb login`, or give logger.wandb.mode=offline"
        )
    sweep = sweep_of(folder)
    logger = BackgroundWandbLogger(
        project=project,
        entity=entity,
        name=name or (f"{sweep}/{folder.name}" if sweep else folder.name),
        group=group or sweep,
        tags=list(tags),
        id=_id_of_agent() or run_id,
        save_dir=folder,
        offline=not starts_online(mode),
        settings=quiet(),
    )
    # Lightning passes it on even where it is not given, and wandb warns of it.
    logger._wandb_init.pop("anonymous", None)
    return logger


def _id_of_agent() -> str | None:
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def starts_online(mode: Mode) -> bool:
    """Whether a run sends what it logs at once."""
    return is_logged_in() if mode == "auto" else mode == "online"


def is_logged_in() -> bool:
    """Whether W&B credentials are at hand: an API key, an identity token, or an entry in the netrc file."""
    if os.environ.get("WANDB_MODE", "online") in ("offline", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
