"""Everything that one pass over the validation or test blocks is scored by."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from longtag.metrics.distance_accuracy import DistanceAccuracy
from longtag.metrics.token_metrics import TokenMetrics


class Scores(nn.Module):
    """The mean loss over labelled tokens, token metrics and, where distances are known, accuracy by them, of one pass.

    Args:
        metrics: copied, so that one object can serve for several splits.
    """

    def __init__(self, metrics: TokenMetrics) -> None:
        super().__init__()
        self.metrics = metrics.clone()
        self.loss = MeanMetric(nan_strategy="ignore")
        self.by_distance = DistanceAccuracy(ignore_index=metrics.ignore_index)
        self.names = ("loss", *metrics.names)
        """Of the figures that every pass has, whatever the data."""

    def update(self, predictions: Tensor, labels: Tensor, loss: Tensor, distances: Tensor | None = None) -> None:
        """Add a crop: predicted classes, labels and distances, (batch, N) each, and the mean loss of its labels."""
        self.loss.update(loss.detach(), weight=(labels >= 0).sum())
        self.metrics.update(predictions, labels)
        if distances is not None:
            self.by_distance.update(predictions, labels, distances)

    def finish(self) -> dict[str, Tensor]:
        """All figures of the pass by name, as float32 scalars; the next pass starts from nothing."""
        figures = {"loss": self.loss.compute(), **self.metrics.compute()}
        if self.by_distance.update_called:
            figures |= self.by_distance.compute()
        for part in (self.loss, self.metrics, self.by_distance):
            part.reset()
        return {name: torch.as_tensor(figure).float() for name, figure in figures.items()}
