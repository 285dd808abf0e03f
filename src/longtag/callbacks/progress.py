"""How far the training is: one live line in a terminal, a plain line now and then where the output is a file."""

import logging
import sys
import time
from typing import Any, TextIO

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from longtag.errors import UsageError

SHORT_NAMES = {
    "train/loss": "loss",
    "val/loss": "val loss",
    "val/accuracy": "val accuracy",
    "val/f1_macro": "val F1",
}

REDRAWN_EVERY_SECONDS = 0.2
"""Drawing the line takes the host a millisecond or two, which a GPU would idle through at every step."""


class Progress(Callback):
    """Shows step, loss, tokens per second, peak memory, the last validation and the time left.

    While the line is live, what others print or log appears above it.

    Args:
        plain_every_seconds: how often a line is written where the output is no terminal; the first and the last step
            and every validation are written always.
    """

    def __init__(self, *, plain_every_seconds: float = 10.0) -> None:
        if plain_every_seconds < 0:
            raise UsageError(f"plain_every_seconds={plain_every_seconds}: expected 0 or more seconds")
        self.plain_every_seconds = plain_every_seconds
        self._console = Console(file=sys.stdout)
        self._bar: Bar | None = None
        self._started = 0.0
        self._first_step = 0
        self._last_shown = -float("inf")
        self._log_streams: list[tuple[logging.StreamHandler[TextIO], TextIO]] = []
        self._validation = ""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.perf_counter()
        self._first_step = trainer.global_step
        if trainer.is_global_zero and self._console.is_terminal:
            self._bar = Bar(BarColumn(20), TextColumn("{task.description}"), console=self._console, auto_refresh=False)
            self._bar.add_task("", total=trainer.max_steps)
            self._bar.start()
            self._lead_logs_above()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        is_edge = trainer.global_step in (self._first_step + 1, trainer.max_steps)
        every_seconds = self.plain_every_seconds if self._bar is None else REDRAWN_EVERY_SECONDS
        if not is_edge and time.perf_counter() - self._last_shown < every_seconds:
            return
        self._last_shown = time.perf_counter()
        line = self._training_line(trainer)
        if self._bar is None:
            print(line, flush=True)
        else:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step, description=line, refresh=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        figures = trainer.callback_metrics
        self._validation = "  ".join(
            f"{short} {figures[name]:.4f}"
            for name, short in SHORT_NAMES.items()
            if name[:3] == "val" and name in figures
        )
        if self._bar is not None:
            self._bar.console.print(f"step {trainer.global_step}  {self._validation}", highlight=False)
        elif trainer.state.fn == "fit":
            print(f"step {trainer.global_step}  {self._validation}", flush=True)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        for handler, stream in self._log_streams:
            handler.setStream(stream)
        self._log_streams.clear()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _lead_logs_above(self) -> None:
        """The bar takes over sys.stdout and sys.stderr, but handlers of logs have kept what these were before."""
        loggers = [logging.root, *logging.root.manager.loggerDict.values()]
        for handler in {handler for logger in loggers for handler in getattr(logger, "handlers", [])}:
            stream = getattr(handler, "stream", None)
            if isinstance(handler, logging.StreamHandler) and stream in (sys.__stdout__, sys.__stderr__) and stream:
                self._log_streams.append((handler, stream))
                handler.setStream(sys.stderr)

    def _training_line(self, trainer: L.Trainer) -> str:
        figures = trainer.callback_metrics
        parts = [f"step {trainer.global_step}/{trainer.max_steps}"]
        if "train/loss" in figures:
            parts.append(f"loss {figures['train/loss']:.4f}")
        if "throughput/tokens_per_second" in figures:
            parts.append(f"{_with_unit(float(figures['throughput/tokens_per_second']))} tokens/s")
        for name in ("memory/peak_allocated_gib", "memory/peak_rss_gib"):
            if name in figures:
                parts.append(f"peak {figures[name]:.2f} GiB")
        parts.append(f"{self._time_left(trainer)} left")
        return "  ".join(parts)

    def _time_left(self, trainer: L.Trainer) -> str:
        """Time to the last step at the pace so far, validations included."""
        done = trainer.global_step - self._first_step
        if done == 0:
            return "?"
        seconds = (time.perf_counter() - self._started) / done * (trainer.max_steps - trainer.global_step)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _with_unit(count: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"
