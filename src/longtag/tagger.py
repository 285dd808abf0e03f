"""The LightningModule: training, validation and test steps over crops. Monitoring is left to callbacks."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from longtag.gradient import clip_gradients
from longtag.loggers.step_results import LogsNumbers
from longtag.loss import TokenLoss, mean
from longtag.memory.micro_batches import MeanOverStep
from longtag.memory.tiled_loss import Predictions, cost_of_tokens, predict
from longtag.metrics import Scores, TokenMetrics
from longtag.model import TokenClassifier
from longtag.optim import Optimization
from longtag.optim.adamw import AdamW
from longtag.optim.low_precision import LowPrecisionAdamW

Batch = dict[str, Tensor]


class Tagger(LogsNumbers):
    """Labels every token of a crop. A step whose gradient is not finite changes neither weights nor optimizer.

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
        self.mean_over_step = MeanOverStep()
        self.gradient_norm: Tensor | None = None
        """Of the last optimizer step, before clipping, on the device; None where there was no gradient left."""
        self.last_loss = torch.zeros(())
        """Of the last batch, on the device."""

    def cost_and_weight(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the labelled tokens of a batch cost in all, and what to divide it by for their mean; two scalars."""
        labels = batch["labels"]
        cost = cost_of_tokens(
            self.model.head, self.loss, self.model.encode(batch["inputs"]), labels, tile=self.model.levers.tile_tokens
        )
        return cost, self.loss.weight(labels)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        labels = batch["labels"]
        cost, weight = self.cost_and_weight(batch)
        loss = mean(cost, weight)
        self.last_loss = loss.detach()
        self.log("train/loss", loss, batch_size=labels.shape[0])
        if self._batches_of_a_step == 1:
            return loss
        # Lightning divides by the number of batches; what is left to do for the mean over tokens is done at the step.
        return self.mean_over_step.add(cost, weight, labels.numel()) * self.trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self._batches_of_a_step > 1:
            self.mean_over_step.finish(self.parameters(), self.trainer.strategy.reduce, self.trainer.world_size)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        self.gradient_norm = clip_gradients(self.parameters(), gradient_clip_val, gradient_clip_algorithm)
        if isinstance(optimizer, AdamW | LowPrecisionAdamW) and self.gradient_norm is not None:
            optimizer.found_inf = (~self.gradient_norm.isfinite()).float()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # Lightning would free the gradients after the next forward pass, beside whose activations they would stand.
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self.zero_grad(set_to_none=True)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._score(self.val_scores, batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Also hands `Predictions` by name to the callbacks."""
        return self._score(self.test_scores, batch)._asdict()

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": figure for name, figure in self.val_scores.finish().items()})

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": figure for name, figure in self.test_scores.finish().items()})

    def on_train_start(self) -> None:
        (schedule,) = self.trainer.lr_scheduler_configs
        self.optimization.set_options(self.trainer.optimizers[0], schedule.scheduler)  # pyright: ignore[reportArgumentType]

    def configure_optimizers(self) -> Any:
        return self.optimization.configure(self.model, max_steps=self.trainer.max_steps)

    @property
    def _batches_of_a_step(self) -> int:
        return self.trainer.accumulate_grad_batches * self.trainer.world_size

    def _score(self, scores: Scores, batch: Batch) -> Predictions:
        labels, features = batch["labels"], self.model.encode(batch["inputs"])
        predictions = predict(self.model.head, self.loss, features, labels, tile=self.model.levers.tile_tokens)
        loss = mean(predictions.cost, self.loss.weight(labels))
        scores.update(predictions.classes, labels, loss, batch.get("distances"))
        return predictions
