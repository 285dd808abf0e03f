"""summary.json: the best and the last of every figure of a run, and how the run ended."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from longtag.folder import RunFolder

SMALLER_IS_BETTER = ("loss", "_ms", "_gib", "_retries", "_failures")


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
        self._follow(trainer.callback_metrics)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._follow(trainer.callback_metrics)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._follow(trainer.callback_metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"last": dict(self.last), "best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.last, self.best = dict(state_dict["last"]), dict(state_dict["best"])

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
        figures = {**ended, "steps": self.steps, **self.facts, **self.last, "best": self.best}
        self.folder.write_summary(figures)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and logger._experiment is not None:
                best = {f"best/{name}": value for name, value in self.best.items()}
                logger.experiment.summary.update(best | ended)

    def _follow(self, figures: Mapping[str, Any]) -> None:
        for name, figure in figures.items():
            value = float(figure)
            choose = min if name.endswith(SMALLER_IS_BETTER) else max
            self.best[name] = choose(value, self.best.get(name, value))
            self.last[name] = value
