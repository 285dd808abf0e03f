"""Cross-entropy over labelled tokens, with class weights, label smoothing or focal modulation."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtag.errors import UsageError

ClassWeights = Literal["balanced"] | Sequence[float] | None


class TokenLoss(nn.Module):
    """Mean loss of the labelled tokens, from logits.

    With weights w and target class y, a token costs w[y] * (1 - p[y])^focal_gamma * -log p[y], and the sum is divided
    by the sum of w[y], as torch's cross_entropy does. focal_gamma=0 is plain cross-entropy; 2 is the value of Lin et
    al. (2017), "Focal Loss for Dense Object Detection".

    class_weights:   None weighs all classes alike. "balanced" gives class c the weight total / (classes * count[c]), so
                     that all classes that occur contribute alike; a class that never occurs gets 0, because there is
                     nothing to balance it by. Or one weight for each class.
    focal_gamma:     how much tokens that are right already count less, 0 or more.
    label_smoothing: share of the target spread over all classes, from 0 to 1; not together with focal_gamma.
    ignore_index:    label of tokens that have none.
    class_counts:    labelled tokens of each class in the training split; needed for "balanced", and where it is given,
                     explicit weights are checked against it.

    Raises UsageError, naming the option, for weights or shares that cannot be used.
    """

    weights: Tensor | None

    def __init__(
        self,
        *,
        class_weights: ClassWeights = None,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
        ignore_index: int = -100,
        class_counts: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        super().__init__()
        if focal_gamma < 0:
            raise UsageError(f"focal_gamma={focal_gamma}: expected 0 (cross-entropy) or more, such as 2")
        if not 0 <= label_smoothing <= 1:
            raise UsageError(f"label_smoothing={label_smoothing}: expected a share from 0 to 1, such as 0.1")
        if focal_gamma and label_smoothing:
            raise UsageError(
                f"focal_gamma={focal_gamma} and label_smoothing={label_smoothing}: the focal loss is defined for the "
                f"target class alone; set one of them to 0"
            )
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        # Not persistent: the weights follow from the options, which a resumed run may change.
        self.register_buffer("weights", _resolve(class_weights, class_counts), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (batch, N, classes) in any float dtype, int64 labels (batch, N) -> float32 scalar.

        Without a single labelled token the loss is 0 and so are its gradients.
        """
        return mean(self.cost(logits, labels), self.weight(labels))

    def cost(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of what the tokens cost, a float32 scalar; costs of parts of a sequence add up."""
        # Under autocast, too: bfloat16 would round the loss to three digits.
        return self._costs(logits.flatten(0, -2).float(), labels.flatten()).sum()

    def weight(self, labels: Tensor) -> Tensor:
        """What the cost of these tokens is divided by for their mean: the sum of their weights, a float32 scalar."""
        labels = labels.flatten()
        labelled = labels != self.ignore_index
        if self.weights is None:
            return labelled.sum().float()
        return (self.weights[labels.clamp_min(0)] * labelled).sum()

    def _costs(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted loss of each token, 0 where there is no label."""
        if self.focal_gamma == 0:
            return F.cross_entropy(
                logits,
                labels,
                self.weights,
                ignore_index=self.ignore_index,
                reduction="none",
                label_smoothing=self.label_smoothing,
            )
        surprise = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none")
        # The smallest normal float keeps the power's slope finite where p is 1 and gamma below 1.
        wrong = (-torch.expm1(-surprise)).clamp_min(torch.finfo(surprise.dtype).tiny)
        costs = wrong**self.focal_gamma * surprise
        return costs if self.weights is None else costs * self.weights[labels.clamp_min(0)]


def mean(cost: Tensor, weight: Tensor) -> Tensor:
    """cost / weight; 0, with gradients of 0, where nothing has a weight."""
    return cost / torch.where(weight > 0, weight, 1.0)


def _resolve(class_weights: ClassWeights, class_counts: Sequence[int] | np.ndarray | None) -> Tensor | None:
    if class_weights is None:
        return None
    counts = None if class_counts is None else np.asarray(class_counts, dtype=np.float64)
    if isinstance(class_weights, str):
        if class_weights != "balanced":
            raise UsageError(f"class_weights={class_weights}: expected null, balanced, or one number for each class")
        if counts is None or counts.sum() == 0:
            raise UsageError("class_weights=balanced: the training split has no labelled token to count classes by")
        return torch.tensor(_balanced(counts), dtype=torch.float32)
    if counts is not None and len(counts) != len(class_weights):
        raise UsageError(
            f"class_weights={list(class_weights)}: {len(class_weights)} weights for {len(counts)} classes; "
            f"give one for each class"
        )
    weights = torch.tensor(list(class_weights), dtype=torch.float32)
    if not (weights.isfinite() & (weights >= 0)).all() or not weights.any():
        raise UsageError(f"class_weights={list(class_weights)}: expected numbers from 0 up, not all of them 0")
    return weights


def _balanced(counts: np.ndarray) -> np.ndarray:
    occurs = counts > 0
    return np.divide(counts.sum(), occurs.sum() * counts, out=np.zeros_like(counts), where=occurs)
