"""Head and loss a tile of tokens at a time: logits exist for one tile only, in training and in evaluation.

Legend: b batch, n tokens, m width of the model, t tokens of a tile, c classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from longtag.loss import TokenLoss
from longtag.memory.checkpointing import recomputed
from longtag.memory.tiles import each_tile

Head = Callable[[Tensor], Tensor]
"""(t, m) features -> (t, c) logits."""


def cost_of_tokens(head: Head, loss: TokenLoss, features: Tensor, labels: Tensor, *, tile: int | None) -> Tensor:
    """`loss.cost(head(features), labels)`, a float32 scalar.

    features: (b, n, m).
    labels:   (b, n) int64.
    tile:     tokens at a time, whose logits are computed a second time in backward; None takes all of them at once and
              keeps the logits.
    """
    if tile is None:
        return loss.cost(head(features), labels)

    def cost_of_tile(features_tm: Tensor, labels_t: Tensor) -> Tensor:
        return loss.cost(head(features_tm), labels_t)

    total = features.new_zeros((), dtype=torch.float32)
    for features_tm, labels_t in _tiles(features, labels, tile):
        total = total + recomputed(cost_of_tile, features_tm, labels_t, draws=False)
    return total


@torch.no_grad()
def predict(
    head: Head, loss: TokenLoss, features: Tensor, labels: Tensor, *, tile: int | None
) -> tuple[Tensor, Tensor]:
    """Predicted classes (b, n) int64, and the cost of all tokens as `cost_of_tokens` gives it."""
    predictions, total = [], features.new_zeros((), dtype=torch.float32)
    for features_tm, labels_t in _tiles(features, labels, tile):
        logits_tc = head(features_tm)
        predictions.append(logits_tc.argmax(-1))
        total += loss.cost(logits_tc, labels_t)
    return torch.cat(predictions).view(labels.shape), total


def _tiles(features: Tensor, labels: Tensor, tile: int | None):
    """Pairs of (t, m) and (t,)."""
    labels = labels.flatten()
    return zip(each_tile(features.flatten(0, -2), tile), labels.split(tile or labels.numel()), strict=True)
