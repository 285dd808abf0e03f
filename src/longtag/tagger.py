"""The LightningModule: training, validation and test steps over crops. Monitoring is left to callbacks."""

from typing import Any

import lightning as L
from torch import Tensor

from longtag.loss import TokenLoss
from longtag.metrics import Scores, TokenMetrics
from longtag.model import TokenClassifier
from longtag.optim import Optimization

Batch = dict[str, Tensor]


class Tagger(L.LightningModule):
    """Labels every token of a crop.

    Args:
        model: maps inputs (batch, N) or (batch, N, width) to logits (batch, N, num_classes).
        loss: maps logits and labels (batch, N), -100 where there is none, to a scalar: the mean over labelled tokens.
        optimization: makes the optimizer and its learning-rate schedule.
        metrics: streaming token metrics; one copy for the validation, one for the test.
    """

    def __init__(
        self, *, model: TokenClassifier, loss: TokenLoss, optimization: Optimization, metrics: TokenMetrics
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.optimization = optimization
        self.val_scores = Scores(metrics)
        self.test_scores = Scores(metrics)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self.model(batch["inputs"]), batch["labels"])
        self.log("train/loss", loss, batch_size=batch["labels"].shape[0])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(self.val_scores, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(self.test_scores, batch)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": figure for name, figure in self.val_scores.finish().items()})

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": figure for name, figure in self.test_scores.finish().items()})

    def configure_optimizers(self) -> Any:
        return self.optimization.configure(self.model, max_steps=self.trainer.max_steps)

    def _score(self, scores: Scores, batch: Batch) -> None:
        logits = self.model(batch["inputs"])
        scores.update(logits, batch["labels"], self.loss(logits, batch["labels"]))
