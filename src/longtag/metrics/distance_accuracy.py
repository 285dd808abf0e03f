"""Accuracy by the distance over which a label's cause had to be carried."""

import torch
from torch import Tensor
from torchmetrics import Metric

POWERS = 20
"""Bounds run from 4^0 to 4^19, about 10^11 tokens."""


class DistanceAccuracy(Metric):
    """Accuracy of labelled tokens, for distances up to 1, from 2 to 4, from 5 to 16, from 17 to 64 and so on.

    The bounds are powers of four whatever the length is, so that runs of different lengths can be compared name by
    name. The state is two int64 vectors of POWERS counts, summed over processes.

    ignore_index: label of tokens that have none.
    """

    higher_is_better = True
    full_state_update = False
    right: Tensor
    total: Tensor
    bounds: Tensor

    def __init__(self, *, ignore_index: int = -100) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.register_buffer("bounds", 4 ** torch.arange(POWERS), persistent=False)
        for name in ("right", "total"):
            self.add_state(name, torch.zeros(POWERS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, labels: Tensor, distances: Tensor) -> None:
        """Add predicted classes, labels, and distances in tokens, integers of one shape (batch, N)."""
        labelled = labels != self.ignore_index
        power = torch.bucketize(distances.long(), self.bounds).clamp(max=POWERS - 1)
        # The bin behind the last takes what is not to be counted, so that no shape depends on how much that is.
        self.total += torch.bincount(power.where(labelled, POWERS).flatten(), minlength=POWERS + 1)[:POWERS]
        is_right = labelled & (predictions == labels)
        self.right += torch.bincount(power.where(is_right, POWERS).flatten(), minlength=POWERS + 1)[:POWERS]

    def compute(self) -> dict[str, Tensor]:
        """`accuracy_at_distance/<upper bound>` for each range that holds a labelled token, float64 scalars."""
        shares = self.right.double() / self.total.clamp(min=1)
        occurring = self.total.nonzero().flatten().tolist()
        return {f"accuracy_at_distance/{4**power}": shares[power] for power in occurring}
