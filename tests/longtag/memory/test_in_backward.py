import copy
import gc
from weakref import ref

import pytest
import torch

from longtag.memory import Levers
from longtag.memory.live_bytes import LiveBytes
from longtag.model import TokenClassifier
from longtag.optim import Optimization
from longtag.optim.adamw import AdamWInBackward

from .conftest import small_model

IDS = torch.arange(60).view(1, 60) % 5


def train(model: TokenClassifier, in_backward: bool, num_steps: int, state: dict | None = None):
    """The optimizer after some steps, the rate falling at each."""
    parts = Optimization(learning_rate=0.01, warmup_steps=1, in_backward=in_backward).configure(model, max_steps=6)
    optimizer, schedule = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])

    def closure():
        optimizer.zero_grad()
        cost = model.head(model.encode(IDS)).square().mean()
        cost.backward()
        return cost

    for _ in range(num_steps):
        optimizer.step(closure)
        schedule.step()
    return {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}


@pytest.mark.parametrize(
    "levers",
    [Levers(), Levers(checkpoint="selective"), Levers(checkpoint="blocks", tile_tokens=9, tile_heads=3)],
    ids=["fast", "selective", "lean"],
)
def test_weights_and_state_after_some_steps_are_those_of_steps_at_the_end(levers):
    usual, ours = (small_model(levers, dropout=0.0) for _ in range(2))
    expected, found = train(usual, False, 4), train(ours, True, 4)
    for name, weight in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-5, atol=1e-7)
    assert found["optimizer"]["param_groups"] == expected["optimizer"]["param_groups"]
    for number, state in expected["optimizer"]["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(found["optimizer"]["state"][number][name], value, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("first", [False, True])
def test_a_checkpoint_of_either_way_goes_on_in_the_other(first):
    straight, halves = small_model(dropout=0.0), small_model(dropout=0.0)
    train(straight, True, 4)
    state = copy.deepcopy(train(halves, first, 2))
    train(halves, not first, 2, state)
    for name, weight in straight.state_dict().items():
        torch.testing.assert_close(halves.state_dict()[name], weight, rtol=1e-5, atol=1e-7)


def test_no_gradient_is_left_and_few_ever_exist_together():
    model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(8)))
    optimizer = AdamWInBackward([{"params": list(model.parameters())}])
    x = torch.randn(2, 64)

    def backward():
        model(x).sum().backward()

    optimizer.step(backward)
    assert all(parameter.grad is None for parameter in model.parameters())
    with LiveBytes() as live:
        optimizer.step(backward)
    in_backward = live.peak
    with LiveBytes() as live:
        backward()
    assert live.peak > 8 * 64 * 64 * 4
    # One gradient, and what AdamW computes from it.
    assert in_backward < 4 * 64 * 64 * 4


def test_a_backward_pass_outside_of_a_step_leaves_its_gradients():
    linear = torch.nn.Linear(3, 3)
    AdamWInBackward([{"params": list(linear.parameters())}])
    before = linear.weight.detach().clone()
    linear(torch.ones(1, 3)).sum().backward()
    assert torch.equal(linear.weight, before)
    assert linear.weight.grad is not None


def test_a_step_without_a_closure_is_refused():
    with pytest.raises(ValueError, match=r"closure: .* give step"):
        AdamWInBackward([{"params": [torch.nn.Parameter(torch.ones(2))]}]).step()


def test_a_model_that_nobody_uses_any_more_is_let_go():
    model = small_model(Levers())
    train(model, in_backward=True, num_steps=2)
    weight = ref(model.head.weight)
    del model
    gc.collect()
    assert weight() is None
