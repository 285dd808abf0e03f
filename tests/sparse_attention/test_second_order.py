"""Gradients of gradients, which the kernels do not have: refused, and never silently 0."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from sparse_attention import IMPLEMENTATIONS, Layout, patterns, sparse_attention, sparse_self_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = {
    "index list": patterns.random(20, keys_per_query=2),
    "block sparse": patterns.window(20, window=2, layout="block_sparse", block_size=16),
    "hubs apart": patterns.hubs(20, num_hubs=2, window=2, layout="hubs_apart", block_size=16),
    "in parts": patterns.union(
        20,
        patterns=[partial(patterns.random, keys_per_query=2), partial(patterns.hubs, num_hubs=1, window=2)],
        layout="in_parts",
        block_size=16,
    ),
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_they_are_refused(name: str, fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)
    qkv = torch.randn(1, 20, 3, 1, 8, device=DEVICE, requires_grad=True)
    layout = LAYOUTS[name].to(DEVICE)
    (gradient,) = torch.autograd.grad(_attend(qkv, layout, fused).square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def _attend(qkv: torch.Tensor, layout: Layout, fused: bool) -> torch.Tensor:
    if fused:
        return sparse_self_attention(qkv, layout)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    return sparse_attention(q, k, v, layout)
