import gc

import pytest
import torch
from torch import nn

from longtag.memory import Levers
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.selective import made_again

from .conftest import cost_and_gradients, small_model


@pytest.fixture
def runs(monkeypatch):
    """How often attention was run forward."""
    import longtag.model.attention as module

    calls, operator = [], module.sparse_self_attention

    def counted(*args, **kwargs):
        calls.append(1)
        return operator(*args, **kwargs)

    monkeypatch.setattr(module, "sparse_self_attention", counted)
    return calls


@pytest.mark.parametrize(
    ("levers", "expected"),
    [(Levers(), 3), (Levers(checkpoint="selective"), 3), (Levers(checkpoint="blocks"), 6), (Levers(tile_heads=2), 9)],
    ids=["none", "selective", "blocks", "heads"],
)
def test_attention_alone_is_not_run_a_second_time(runs, levers, expected):
    cost_and_gradients(small_model(levers))
    assert len(runs) == expected


class Parts:
    """x -> two views of a linear layer's output -> their product, twice."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.linear, self.made = nn.Linear(16, 32), 0
        self.x = torch.randn(64, 16, requires_grad=True)

    def make(self) -> torch.Tensor:
        self.made += 1
        return self.linear(self.x)

    def run(self, selective: bool) -> torch.Tensor:
        made = self.make()
        if not selective:
            return self.product(made)
        with made_again(made, self.make):
            return self.product(made)

    @staticmethod
    def product(made: torch.Tensor) -> torch.Tensor:
        left, right = made.chunk(2, dim=1)
        return (left * right).tanh() * right


def test_gradients_are_the_same_and_what_is_made_again_is_made_once_a_backward():
    parts = Parts()
    inputs = [parts.x, *parts.linear.parameters()]
    expected = torch.autograd.grad(parts.run(False).sum(), inputs)
    out, parts.made = parts.run(True), 0
    for backward in (1, 2):
        found = torch.autograd.grad(out.sum(), inputs, retain_graph=True)
        assert parts.made == backward
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_the_memory_of_what_is_made_again_is_let_go_in_forward_and_after_its_use():
    parts = Parts()
    size = 64 * 32 * 4
    kept = {}
    for selective in (False, True):
        with LiveBytes() as live:
            out = parts.run(selective)
            kept[selective] = live.now
            out.sum().backward()
            del out
            parts.x.grad = None
            parts.linear.zero_grad()
            assert live.now == 0
    assert kept[False] - kept[True] == size


def test_what_is_made_again_is_made_under_the_autocast_of_forward():
    parts = Parts()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exact, out = parts.run(False), parts.run(True)
    assert out.dtype == torch.bfloat16
    (expected,), (found,) = (torch.autograd.grad(y.float().sum(), parts.x) for y in (exact, out))
    assert torch.equal(found, expected)


def test_a_graph_that_is_never_run_backward_is_freed():
    parts = Parts()
    gc.disable()
    try:
        with LiveBytes() as live:
            out = parts.run(True)
            assert live.now > 0
            # The hyperbolic tangent keeps its own result.
            del out
            assert live.now == 0
    finally:
        gc.enable()
