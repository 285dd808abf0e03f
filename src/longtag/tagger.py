"""The LightningModule: training, validation and test steps over crops. Monitoring is left to callbacks."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from longtag.loss import TokenLoss
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

    def __init__(self, *, model: nn.Module, loss: TokenLoss, optimization: Optimization, metrics: Metric) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.optimization = optimization
        self.metrics = nn.ModuleDict({split: metrics.clone() for split in ("val", "test")})
        self.mean_loss = nn.ModuleDict({split: MeanMetric(nan_strategy="ignore") for split in ("val", "test")})

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self.model(batch["inputs"]), batch["labels"])
        self.log("train/loss", loss, batch_size=batch["labels"].shape[0])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._score("test", batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def configure_optimizers(self) -> Any:
        return self.optimization.configure(self.model, max_steps=self.trainer.max_steps)

    def _score(self, split: str, batch: Batch) -> None:
        labels = batch["labels"]
        logits = self.model(batch["inputs"])
        self.mean_loss[split].update(self.loss(logits, labels).detach(), weight=(labels >= 0).sum())
        self.metrics[split].update(logits, labels)

    def _log_scores(self, split: str) -> None:
        scores = {"loss": self.mean_loss[split].compute(), **self.metrics[split].compute()}
        self.log_dict({f"{split}/{name}": torch.as_tensor(value).float() for name, value in scores.items()})
        self.mean_loss[split].reset()
        self.metrics[split].reset()
