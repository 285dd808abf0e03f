"""summary.json: the best and the last of every figure of a run, and how the run ended."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from longtag.folder import RunFolder
from longtag.loggers.wandb import unless_gone

SMALLER_IS_BETTER = (
    *("loss", "_ms", "_gib", "_retries", "_failures"),
    *("wait_share", "gradient_norm", "skipped_steps", "power_w"),
)


class Summary(Callback):
    """Follows every logged figure and writes the folder's summary.json.

    Args:
        folder: the folder of the run.
        facts: what is known before the first step, for example ``pattern``, ``tokens`` and ``parameters``.
    """

    def __init__(self, folder: RunFolder, facts: Mapping[str, Any]) -> None:
        self.folder = folder
        self.facts = dict(facts)
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.steps = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.steps = trainer.global_step
        # The figures of the last validation are followed already, and reading each is a wait for the device.
        self._follow({name: figure for name, figure in trainer.callback_metrics.items() if name[:4] != "val/"})

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._follow(trainer.callback_metrics)
        self._tell_wandb(trainer, {})

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._follow(trainer.callback_metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"last": dict(self.last), "best": dict(self.best), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last, self.best = dict(state_dict["last"]), dict(state_dict["best"])
        self.steps = state_dict.get("steps", 0)

    def write(self, trainer: L.Trainer, status: str, error: str | None = None) -> None:
        """Write summary.json, and the same figures into the summary of the W&B run.

        Args:
            trainer: the trainer of the run.
            status: ``completed``, ``interrupted`` or ``failed``.
            error: why it failed.
        """
        if not trainer.is_global_zero:
            return
        ended = {"status": status} if error is None else {"status": status, "error": error}
        last = {name: value if math.isfinite(value) else None for name, value in self.last.items()}
        figures = {**ended, "steps": self.steps, **self.facts, **last, "best": self.best}
        self.folder.write_summary(figures)
        self._tell_wandb(trainer, ended)

    def _tell_wandb(self, trainer: L.Trainer, ended: Mapping[str, str]) -> None:
        for run in _wandb_runs(trainer):
            with unless_gone():
                run.summary.update({f"best/{name}": value for name, value in self.best.items()} | dict(ended))

    def _follow(self, figures: Mapping[str, Any]) -> None:
        for name, figure in figures.items():
            value = float(figure)
            self.last[name] = value
            if math.isfinite(value):
                choose = min if name.endswith(SMALLER_IS_BETTER) or "/loss" in name else max
                self.best[name] = choose(value, self.best.get(name, value))


def _wandb_runs(trainer: L.Trainer) -> Iterator[Any]:
    """The W&B runs that have begun."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            yield logger.experiment
