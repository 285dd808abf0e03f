"""Layouts that were made, or first used, in a validation under inference_mode, and then in training."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from sparse_attention import IMPLEMENTATIONS, IndexList, Layout, patterns, sparse_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NUM_TOKENS = 40


def list_with_full_row() -> Layout:
    table = torch.arange(NUM_TOKENS).view(-1, 1).repeat(1, 2)
    table[3] = -1
    return IndexList(table.int(), full_rows=[3])


LAYOUTS: dict[str, Callable[[], Layout]] = {
    "index list": list_with_full_row,
    "block sparse": partial(patterns.window, NUM_TOKENS, window=3, layout="block_sparse", block_size=16),
    "hubs apart": partial(patterns.hubs, NUM_TOKENS, num_hubs=2, window=3, layout="hubs_apart", block_size=16),
    "in parts": partial(
        patterns.union,
        NUM_TOKENS,
        patterns=[partial(patterns.random, keys_per_query=2), partial(patterns.hubs, num_hubs=1, window=2)],
        layout="in_parts",
        block_size=16,
    ),
    "nearest": partial(patterns.knn, NUM_TOKENS, num_nearest=2, chunk=8),
}


@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("made_within", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_from_inference_mode_can_be_trained_with(
    name: str, made_within: bool, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)
    inputs = torch.randn(3, 1, 2, NUM_TOKENS, 8, device=DEVICE)
    layout = LAYOUTS[name]().to(DEVICE)
    with torch.inference_mode():
        layout = LAYOUTS[name]().to(DEVICE) if made_within else layout
        q, k, v = inputs.unbind()
        expected = sparse_attention(q, k, v, layout, implementation=implementation)
        layout.build()
    q, k, v = inputs.clone().requires_grad_().unbind()
    out = sparse_attention(q, k, v, layout, implementation=implementation)
    (gradient,) = torch.autograd.grad(out.sum(), v)
    torch.testing.assert_close(out.detach(), expected.clone())
    # Weights of a query add up to one.
    assert gradient.sum() == pytest.approx(out.numel(), rel=1e-5)
