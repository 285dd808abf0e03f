"""Everything that one pass over the validation or test blocks is scored by."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from longtag.metrics.token_metrics import TokenMetrics


class Scores(nn.Module):
    """The mean loss over labelled tokens, and token metrics, of one pass.

    Args:
        metrics: copied, so that one object can serve for several splits.
    """

    def __init__(self, metrics: TokenMetrics) -> None:
        super().__init__()
        self.metrics = metrics.clone()
        self.loss = MeanMetric(nan_strategy="ignore")

    def update(self, predictions: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Add a crop: predicted classes (batch, N), labels (batch, N), and the mean loss of its labelled tokens."""
        self.loss.update(loss.detach(), weight=(labels >= 0).sum())
        self.metrics.update(predictions, labels)

    def finish(self) -> dict[str, Tensor]:
        """All figures of the pass by name, as float32 scalars; the next pass starts from nothing."""
        figures = {"loss": self.loss.compute(), **self.metrics.compute()}
        self.loss.reset()
        self.metrics.reset()
        return {name: torch.as_tensor(figure).float() for name, figure in figures.items()}
