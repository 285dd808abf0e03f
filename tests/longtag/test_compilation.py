"""compile=true."""

from functools import partial

import pytest
import torch

from longtag.compilation import compile_blocks
from longtag.data.source import TokenIds
from longtag.memory import Levers
from longtag.model import TokenClassifier
from sparse_attention import patterns


@pytest.mark.parametrize("levers", [Levers(), Levers(checkpoint="blocks"), Levers(tile_tokens=8)])
def test_compiled_blocks_have_the_gradients_of_eager_ones(levers, monkeypatch):
    backends = []

    def run_what_was_traced(graph, inputs):
        backends.append(graph)
        return graph

    # What the compiler makes of a graph is its own affair, and takes a C++ compiler.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=run_what_was_traced))

    def gradients(*, compiled: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = TokenClassifier(
            inputs=TokenIds(5), num_classes=3, pattern=partial(patterns.window, window=2), num_layers=2, num_heads=2,
            d_model=16, d_ff=24, dropout=0.0, levers=levers,
        )  # fmt: skip
        if compiled:
            compile_blocks(model)
        cost = model(torch.randint(5, (1, 20))).square().mean()
        return torch.cat([part.flatten() for part in torch.autograd.grad(cost, list(model.parameters()))])

    expected = gradients(compiled=False)
    assert not backends
    torch.testing.assert_close(gradients(compiled=True), expected, rtol=1e-4, atol=1e-6)
    assert backends
    torch.compiler.reset()
