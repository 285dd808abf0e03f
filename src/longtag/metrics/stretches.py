"""Short stretches of a test that are worth a look, chosen while it runs: a few are kept, whatever its length."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

NUM_GRADES = 20


class Stretch(NamedTuple):
    """Tokens [start, start + length) of a test crop.

    crop:        number of the crop, counted from 0 as the test reads them.
    accuracy:    of its labelled tokens.
    labels:      (length,) int64 on the CPU, as are the predictions; the confidences are float32.
    """

    crop: int
    start: int
    accuracy: float
    labels: Tensor
    predictions: Tensor
    confidences: Tensor


@dataclass(frozen=True)
class Example:
    """A stretch, and what it was chosen for."""

    why: str
    stretch: Stretch


class ExampleStretches:
    """Keeps the stretch with most errors, a typical one, and the one where the label changes most often.

    Crops are cut into stretches of equal length; those with fewer than half of their tokens labelled do not count, and
    of equal ones the first is kept. Typical is one whose accuracy is graded like that of the median stretch: one is
    kept for each of 20 grades, since the median is known only at the end.

    length:       tokens in a stretch; of a shorter crop the whole.
    ignore_index: label of tokens that have none.
    """

    def __init__(self, *, length: int, ignore_index: int = -100) -> None:
        self.length, self.ignore_index = length, ignore_index
        self._most_errors: Stretch | None = None
        self._liveliest: tuple[int, Stretch] | None = None
        self._grades: list[tuple[int, Stretch | None]] = [(0, None)] * (NUM_GRADES + 1)
        self._num_crops = 0

    def add(self, predictions: Tensor, confidences: Tensor, labels: Tensor) -> None:
        """Add a batch of crops, each tensor (batch, N)."""
        for crop in zip(labels, predictions, confidences, strict=True):
            self._add_crop(*crop)
            self._num_crops += 1

    def chosen(self) -> list[Example]:
        """The examples, the one with most errors first; a stretch chosen for two reasons is there once, with both."""
        reasons: dict[tuple[int, int], list[str]] = {}
        found: dict[tuple[int, int], Stretch] = {}
        for why, stretch in (
            ("most errors", self._most_errors),
            ("typical", self._typical()),
            ("most changes of label", self._liveliest[1] if self._liveliest else None),
        ):
            if stretch is not None:
                reasons.setdefault(stretch[:2], []).append(why)
                found[stretch[:2]] = stretch
        return [Example(", ".join(reasons[place]), stretch) for place, stretch in found.items()]

    def _add_crop(self, labels: Tensor, predictions: Tensor, confidences: Tensor) -> None:
        length = min(self.length, len(labels))
        count = len(labels) // length
        cut = labels[: count * length].view(count, length)
        labelled = cut != self.ignore_index
        right = (predictions[: count * length].view(count, length) == cut) & labelled
        changes = (cut[:, 1:] != cut[:, :-1]) & labelled[:, 1:] & labelled[:, :-1]
        # One transfer for the crop.
        figures = torch.stack([labelled.sum(1), right.sum(1), changes.sum(1)]).cpu().tolist()
        for place, (num_labelled, num_right, num_changes) in enumerate(zip(*figures, strict=True)):
            if 2 * num_labelled < length:
                continue
            accuracy = num_right / num_labelled
            grade = int(accuracy * NUM_GRADES)
            wrongest = self._most_errors is None or accuracy < self._most_errors.accuracy
            liveliest = self._liveliest is None or num_changes > self._liveliest[0]
            seen, example = self._grades[grade]
            if wrongest or liveliest or example is None:
                rows = slice(place * length, (place + 1) * length)
                stretch = Stretch(
                    self._num_crops,
                    rows.start,
                    accuracy,
                    *(part[rows].cpu().clone() for part in (labels, predictions, confidences)),
                )
                self._most_errors = stretch if wrongest else self._most_errors
                self._liveliest = (num_changes, stretch) if liveliest else self._liveliest
                example = example or stretch
            self._grades[grade] = seen + 1, example

    def _typical(self) -> Stretch | None:
        """The first stretch of the grade in which the median lies."""
        below, total = 0, sum(count for count, _ in self._grades)
        for count, stretch in self._grades:
            below += count
            if 2 * below >= total:
                return stretch
        return None
