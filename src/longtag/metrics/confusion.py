"""The confusion matrix of C classes, and the scores that follow from it.

A matrix is (C, C) int64: rows are labels, columns predictions. A score whose denominator is 0 is 0, never NaN.
"""

import torch
from torch import Tensor

CHUNK = 65_536
"""Tokens counted at a time: bounds the int64 temporaries at a few MiB, however long the sequence is."""


def count(scores: Tensor, labels: Tensor, num_classes: int, ignore_index: int = -100) -> Tensor:
    """Count label and prediction pairs.

    scores: logits (..., C) of any float dtype, or predicted classes (...) of any integer dtype.
    labels: (...) classes; tokens labelled `ignore_index` are not counted.
    """
    scores = scores.flatten(0, -2) if scores.is_floating_point() else scores.flatten()
    cells = num_classes * num_classes
    matrix = torch.zeros(cells, dtype=torch.int64, device=labels.device)
    for scores_part, labels_part in zip(scores.split(CHUNK), labels.flatten().split(CHUNK), strict=True):
        predictions = scores_part.argmax(-1) if scores_part.is_floating_point() else scores_part.long()
        # Ignored tokens go to a cell behind the last, which keeps their number off the shapes.
        cell = torch.where(labels_part == ignore_index, cells, labels_part * num_classes + predictions)
        matrix += torch.bincount(cell, minlength=cells + 1)[:cells]
    return matrix.view(num_classes, num_classes)


def accuracy(matrix: Tensor) -> Tensor:
    """Share of tokens whose prediction is their label; a float64 scalar."""
    return _ratio(matrix.diagonal().sum(), matrix.sum())


def f1_per_class(matrix: Tensor) -> Tensor:
    """2 tp / (2 tp + fp + fn) for each class, (C,) float64; 0 for a class in neither labels nor predictions."""
    return _ratio(2 * matrix.diagonal(), matrix.sum(0) + matrix.sum(1))


def f1_macro(matrix: Tensor) -> Tensor:
    """Mean F1 of the classes that occur in labels or predictions; a float64 scalar."""
    occurs = (matrix.sum(0) + matrix.sum(1)) > 0
    return _ratio(f1_per_class(matrix).sum(), occurs.sum())


def matthews_correlation(matrix: Tensor) -> Tensor:
    """Matthews' correlation for C classes (Gorodkin, 2004, "Comparing two K-category assignments"), from -1 to 1.

    A float64 scalar; 0 where all labels or all predictions are of one class.
    """
    # float64: the squares pass 2^63 from three billion tokens on.
    total, right = matrix.sum().double(), matrix.diagonal().sum().double()
    labelled, predicted = matrix.sum(1).double(), matrix.sum(0).double()
    covariance = right * total - (labelled * predicted).sum()
    spread = (total**2 - (labelled**2).sum()) * (total**2 - (predicted**2).sum())
    return _ratio(covariance, spread.sqrt())


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return part.double() / torch.where(whole > 0, whole, 1).double()
