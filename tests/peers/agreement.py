"""How results are held against a peer's."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sparse_attention import sparse_attention
from sparse_attention.layouts import Layout
from sparse_attention.testing import Inputs, assert_as_exact_as_eager, eager_attention, run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLEMENTATION = "auto" if torch.cuda.is_available() else "reference"

Peer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q, k, v) -> out"""


def assert_same_attention(peer: Peer, inputs: Inputs, layout: Layout, *, implementation: str = IMPLEMENTATION) -> None:
    """Ours over `layout` and the peer give the same output and gradients.

    Both must be as near to attention over `layout` in float64 as eager torch in the dtype of the inputs: see
    `assert_as_exact_as_eager`.
    """
    layout = layout.to(inputs.q.device)
    # Peers give no log-sum-exp: nothing comes back through it, and eager's stands in for it.
    inputs = replace(inputs, grad_lse=torch.zeros_like(inputs.grad_lse))

    def ours(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return sparse_attention(q, k, v, layout, implementation=implementation, return_lse=True)

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return peer(q, k, v), eager_attention(q, k, v, layout)[1]

    assert_as_exact_as_eager(run(ours, inputs), inputs, layout)
    assert_as_exact_as_eager(run(theirs, inputs), inputs, layout)
