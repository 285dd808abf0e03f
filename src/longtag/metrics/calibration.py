"""How far the confidence of predictions can be believed, from a few bins that are filled as predictions come in."""

import torch
from torch import Tensor
from torchmetrics import Metric

from longtag.metrics.confusion import CHUNK


class Calibration(Metric):
    """Confidence and accuracy by bin of confidence, over any number of batches and processes.

    The state is one float64 (3, bins + 1) tensor, summed over processes.

    num_bins:     bins of equal width, 2 or more; a confidence on a border belongs to the bin above it, 1 to the last.
    ignore_index: label of tokens that have none.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, *, num_bins: int = 15, ignore_index: int = -100) -> None:
        super().__init__()
        self.num_bins, self.ignore_index = num_bins, ignore_index
        # Rows: tokens, the sum of their confidence, tokens that are right. One column more for tokens without a label.
        self.add_state("sums", torch.zeros(3, num_bins + 1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, confidences: Tensor, labels: Tensor) -> None:
        """Add predicted classes, their probabilities and labels, each (batch, N)."""
        parts = (x.flatten().split(CHUNK) for x in (predictions, confidences, labels))
        for classes, sure, truth in zip(*parts, strict=True):
            sure = sure.double().nan_to_num(0)
            place = (sure * self.num_bins).long().clamp(0, self.num_bins - 1)
            place = torch.where(truth == self.ignore_index, self.num_bins, place)
            self.sums.index_add_(1, place, torch.stack([torch.ones_like(sure), sure, (classes == truth).double()]))

    def compute(self) -> dict[str, Tensor]:
        """Of each bin `count`, mean `confidence` and `accuracy`, 0 without tokens; and `expected_calibration_error`.

        That is the mean over tokens of |accuracy - confidence| of their bin (Guo et al. 2017, arXiv:1706.04599).
        """
        count, sure, right = self.sums[:, : self.num_bins]
        error = (sure - right).abs().sum() / count.sum().clamp(min=1)
        confidence, accuracy = sure / count.clamp(min=1), right / count.clamp(min=1)
        return {"count": count, "confidence": confidence, "accuracy": accuracy, "expected_calibration_error": error}
