"""Weights of a block and the same computation in plain torch."""

import zlib
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longtag.fused import Weights

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Kernels are interpreted where there is no GPU."""


class Masks(NamedTuple):
    """What dropout multiplies by, in float64; 1 without dropout."""

    first: Tensor | float = 1.0
    hidden: Tensor | float = 1.0
    second: Tensor | float = 1.0


def random_rows(*shape: int) -> Tensor:
    return torch.randn(*shape, device=DEVICE).requires_grad_()


def random_weights(width: int, hidden: int, norm: str, *, projected: bool = False) -> Weights:
    def matrix(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, device=DEVICE) * columns**-0.5).requires_grad_()

    return Weights(
        out_weight=None if projected else matrix(width, width),
        out_bias=None if projected else random_rows(width),
        mid_weight=random_rows(width),
        mid_bias=random_rows(width),
        weight1=matrix(hidden, width),
        bias1=random_rows(hidden),
        weight2=matrix(width, hidden),
        bias2=random_rows(width),
        last_weight=random_rows(width) if norm == "post" else None,
        last_bias=random_rows(width) if norm == "post" else None,
    )


def in_float64(x: Tensor, attended: Tensor, weights: Weights) -> tuple[Tensor, Tensor, Weights]:
    """Leaves of a graph of their own."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().double().requires_grad_()

    return copy(x), copy(attended), Weights._make(None if part is None else copy(part) for part in weights)


def plain(x: Tensor, attended: Tensor, weights: Weights, masks: Masks | None = None) -> Tensor:
    """What `behind_attention` computes, operation by operation."""
    masks = masks or Masks()

    def norm(rows: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        return F.layer_norm(rows, rows.shape[-1:], weight, bias, eps=1e-5)

    def feed_forward(rows: Tensor) -> Tensor:
        hidden = F.relu(F.linear(rows, weights.weight1, weights.bias1)) * masks.hidden
        return F.linear(hidden, weights.weight2, weights.bias2) * masks.second

    branch = attended if weights.out_weight is None else F.linear(attended, weights.out_weight, weights.out_bias)
    total = x + branch * masks.first
    mid = norm(total, weights.mid_weight, weights.mid_bias)
    if weights.last_weight is None:
        return total + feed_forward(mid)
    return norm(mid + feed_forward(mid), weights.last_weight, weights.last_bias)


def gradients(out: Tensor, inputs: list[Tensor | None], upstream: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(out, [tensor for tensor in inputs if tensor is not None], upstream.to(out.dtype))
    return list(found)


def relative_error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


@pytest.fixture(autouse=True)
def _fresh_but_known_data(request: pytest.FixtureRequest) -> None:
    # Known to every process, as Python's own hash of a text is not.
    torch.manual_seed(zlib.crc32(request.node.name.encode()))
