"""Levers under torch.compile: recomputation is traced, and gradients are those of eager mode."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from longtag.memory import Levers
from longtag.model import TokenClassifier
from sparse_attention.ops import fused_index_list_attention

from .conftest import DEVICE, assert_equal_to, cost_and_gradients, small_model


def compiled(function: Callable) -> Callable:
    """All but the last stage: no C++ compiler is needed, and a break of the graph is an error."""
    return torch.compile(function, backend="aot_eager", fullgraph=True)


@pytest.fixture(autouse=True)
def _operator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attention as it is on a GPU: one operator, which the compiler does not look into."""

    def attend(qkv, layout, implementation):
        return fused_index_list_attention(qkv, layout, qkv.shape[-1] ** -0.5)[0]

    monkeypatch.setattr("longtag.model.attention.sparse_self_attention", attend)
    torch.compiler.reset()
    counters.clear()
    yield
    num_graphs = counters["stats"]["unique_graphs"]
    torch.compiler.reset()
    assert num_graphs > 0


def model(levers: Levers | None = None) -> tuple[TokenClassifier, dict[str, torch.Tensor]]:
    """A model, and its gradients in eager mode. Its layout is whole then: lists for backward are built at first use."""
    # Not fused, as `compile_blocks` has it: with kernels of its own there is nothing in a block to compile.
    classifier = small_model(levers, num_layers=2, num_heads=2, dropout=0.0, fused=False).to(DEVICE)
    return classifier, cost_and_gradients(classifier, num_tokens=12)


def blocks_of(classifier: TokenClassifier) -> list[Any]:
    return list(classifier.encoder.blocks)


def test_a_compiled_block_that_is_recomputed_has_the_gradients_of_eager_mode():
    classifier, expected = model(Levers(checkpoint="blocks"))
    for block in blocks_of(classifier):
        block.forward = compiled(block.forward)
    assert_equal_to(expected, cost_and_gradients(classifier, num_tokens=12))


def test_a_compiled_encoder_that_recomputes_its_blocks_has_the_gradients_of_eager_mode():
    classifier, expected = model(Levers(checkpoint="blocks", checkpoint_every=2))
    classifier.encoder.forward = compiled(classifier.encoder.forward)
    assert_equal_to(expected, cost_and_gradients(classifier, num_tokens=12))


@pytest.mark.parametrize(
    "levers",
    [
        Levers(checkpoint="selective"),
        Levers(checkpoint="blocks", tile_heads=1),
        Levers(checkpoint="blocks", tile_tokens=5, tile_heads=1),
    ],
    ids=["selective", "heads", "lean"],
)
def test_what_tiles_and_selective_recomputation_run_can_be_compiled(levers):
    # Not the loop over tiles, nor the hooks that find q, k and v again: these stay outside of a graph.
    classifier, expected = model(levers)
    for block in blocks_of(classifier):
        block._behind_attention = compiled(block._behind_attention)
    assert_equal_to(expected, cost_and_gradients(classifier, num_tokens=12))
