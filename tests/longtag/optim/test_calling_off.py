"""A step that is called off on the device changes nothing, and the host does not wait for it."""

from typing import Any

import pytest
import torch

from longtag.optim.adamw import AdamW
from longtag.optim.low_precision import LowPrecisionAdamW

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def weight(device: str) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.linspace(-1, 1, 1001, device=device))


def train(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        parameter.grad = torch.randn(1001, generator=generator).to(parameter.device)
        optimizer.step()


def copied(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    (state,) = optimizer.state.values()
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("states", ["float32", "bfloat16"])
def test_neither_weights_nor_states_change_by_a_bit(device, states):
    parameter = weight(device)
    groups = [{"params": [parameter]}]
    if states == "float32":
        optimizer = AdamW(groups, lr=0.1)
    else:
        optimizer = LowPrecisionAdamW(groups, lr=0.1, betas=(0.9, 0.95), eps=1e-8, states=states)
    train(optimizer, parameter, 3)
    before, states_before = parameter.detach().clone(), copied(optimizer)
    optimizer.found_inf = torch.ones((), device=device)
    parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    assert torch.equal(parameter, before)
    for name, value in copied(optimizer).items():
        same = (
            torch.equal(value, states_before[name]) if isinstance(value, torch.Tensor) else value == states_before[name]
        )
        assert same, name
    optimizer.found_inf = torch.zeros((), device=device)
    train(optimizer, parameter, 1)
    assert not torch.equal(parameter, before)


def test_the_very_first_step_can_be_called_off():
    parameter = weight("cpu")
    before, optimizer = parameter.detach().clone(), AdamW([{"params": [parameter]}], lr=0.1)
    optimizer.found_inf = torch.ones(())
    parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    assert torch.equal(parameter, before)
    assert all(not value.any() for value in copied(optimizer).values())


@pytest.mark.gpu
def test_calling_a_step_off_does_not_wait_for_the_device():
    parameter = weight("cuda")
    optimizer = AdamW([{"params": [parameter]}], lr=0.1)
    train(optimizer, parameter, 1)
    optimizer.found_inf = torch.ones((), device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
