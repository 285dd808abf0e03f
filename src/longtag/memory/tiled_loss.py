"""Head and loss a tile of tokens at a time: logits exist for one tile only, in training and in evaluation.

The loss is the end of the graph, so its gradient can be taken where its value is: tile by tile in forward, without
computing any logits twice. Backward multiplies what was found by the gradient that reaches it.

Legend: b batch, n tokens, m width of the model, t tokens of a tile, c classes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from longtag.loss import TokenLoss
from longtag.memory.checkpointing import casts_of_their_own
from longtag.memory.even_tiles import even_tiles

MOST_ELEMENTS = 2**24
"""Logits, or features, of a tile where nobody asks for fewer: longer tiles are no faster."""


def longest_tile(head: nn.Linear) -> int:
    """Tokens at a time where nobody asks for fewer: many of a narrow head, so that the host does not set the pace."""
    return max(1, MOST_ELEMENTS // max(head.out_features, head.in_features))


def cost_of_tokens(head: nn.Linear, loss: TokenLoss, features: Tensor, labels: Tensor, *, tile: int | None) -> Tensor:
    """`loss.cost(head(features), labels)`, a float32 scalar, whose backward can be run once.

    head:     (t, m) features -> (t, c) logits.
    features: (b, n, m).
    labels:   (b, n) int64.
    tile:     tokens at a time; None takes `longest_tile` of them.
    """
    rows, labels = features.flatten(0, -2), labels.flatten()
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    if not torch.is_grad_enabled() or not (rows.requires_grad or parameters):
        return _sum_over_tiles(head, loss, rows, labels, tile)
    return _CostAndGradient.apply(rows, labels, head, loss, tile, *parameters)  # pyright: ignore[reportReturnType]


class _CostAndGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, labels: Tensor, head: nn.Linear, loss: TokenLoss, tile: int | None, *parameters: Tensor
    ) -> Tensor:
        total = rows.new_zeros((), dtype=torch.float32)
        d_rows = torch.empty_like(rows)
        d_parameters = [torch.zeros_like(parameter) for parameter in parameters]
        for tokens in even_tiles(rows.shape[0], tile or longest_tile(head)):
            with torch.enable_grad(), casts_of_their_own():
                part = rows[tokens].detach().requires_grad_()
                cost = loss.cost(head(part), labels[tokens])
            d_part, *gradients = torch.autograd.grad(cost, (part, *parameters))
            total += cost.detach()
            d_rows[tokens] = d_part
            for total_gradient, gradient in zip(d_parameters, gradients, strict=True):
                total_gradient += gradient
            # Before the next tile is computed, not after.
            del cost, part, d_part, gradients
        ctx.gradients = (d_rows, *d_parameters)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of this loss were given away by its first backward; compute it again")
        (d_rows, *d_parameters), ctx.gradients = ctx.gradients, None
        for gradient in (d_rows, *d_parameters):
            gradient *= d_total
        return d_rows, None, None, None, None, *d_parameters


class Predictions(NamedTuple):
    """What a model says of (b, n) tokens.

    classes:     (b, n) int64, the class with the highest logit.
    confidences: (b, n) float32, the probability that the model gives to that class.
    cost:        of all tokens, as `cost_of_tokens` gives it.
    """

    classes: Tensor
    confidences: Tensor
    cost: Tensor


@torch.no_grad()
def predict(head: nn.Linear, loss: TokenLoss, features: Tensor, labels: Tensor, *, tile: int | None) -> Predictions:
    """Features (b, n, m) and labels (b, n) -> what the head says of them; logits exist for one tile only."""
    rows, flat = features.flatten(0, -2), labels.flatten()
    classes, confidences = torch.empty_like(flat), torch.empty_like(flat, dtype=torch.float32)
    cost = features.new_zeros((), dtype=torch.float32)
    for tokens in even_tiles(rows.shape[0], tile or longest_tile(head)):
        logits_tc = head(rows[tokens])
        highest_t, classes[tokens] = logits_tc.max(-1)
        # In float32, also under autocast: a probability of 0.99 in bfloat16 is wrong in its third digit.
        confidences[tokens] = (highest_t.float() - logits_tc.float().logsumexp(-1)).exp()
        cost += loss.cost(logits_tc, flat[tokens])
        del logits_tc
    return Predictions(classes.view(labels.shape), confidences.view(labels.shape), cost)


def _sum_over_tiles(head: nn.Linear, loss: TokenLoss, rows: Tensor, labels: Tensor, tile: int | None) -> Tensor:
    total = rows.new_zeros((), dtype=torch.float32)
    for tokens in even_tiles(rows.shape[0], tile or longest_tile(head)):
        total += loss.cost(head(rows[tokens]), labels[tokens])
    return total
