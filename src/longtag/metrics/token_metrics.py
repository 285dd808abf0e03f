"""The metric that training, validation and test share."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from longtag.metrics.confusion import accuracy, count, f1_macro, f1_per_class, matthews_correlation

MOST_CLASSES_LISTED = 32


class TokenMetrics(Metric):
    """Accuracy, F1 and Matthews' correlation of labelled tokens, over any number of batches and processes.

    The state is one int64 (C, C) confusion matrix, summed over processes. Before the first labelled token all are 0.

    class_names:  one for each class, in the order of the labels.
    per_class:    whether to list the F1 of each class; "auto" does so for at most 32 classes.
    ignore_index: label of tokens that have none.
    """

    higher_is_better = True
    full_state_update = False
    confusion: Tensor

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        per_class: bool | Literal["auto"] = "auto",
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.per_class = len(self.class_names) <= MOST_CLASSES_LISTED if per_class == "auto" else per_class
        self.ignore_index = ignore_index
        num_classes = len(self.class_names)
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the figures that `compute` gives."""
        return "accuracy", "f1_macro", "mcc", *(f"f1/{name}" for name in self.class_names if self.per_class)

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Add logits (batch, N, classes) or predicted classes (batch, N), and int64 labels (batch, N)."""
        self.confusion += count(scores.detach(), labels, len(self.class_names), self.ignore_index)

    def compute(self) -> dict[str, Tensor]:
        """`accuracy`, `f1_macro` (over classes that occur in labels or predictions), `mcc`, and `f1/<class name>`."""
        results = {
            "accuracy": accuracy(self.confusion),
            "f1_macro": f1_macro(self.confusion),
            "mcc": matthews_correlation(self.confusion),
        }
        if self.per_class:
            scores = f1_per_class(self.confusion)
            results |= {f"f1/{name}": score for name, score in zip(self.class_names, scores, strict=True)}
        return {name: value.float() for name, value in results.items()}
