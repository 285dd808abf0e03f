"""A projection beside which something else reads its input."""

import pytest
import torch
from torch import nn

from longtag.fused import project_beside

from .conftest import DEVICE


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_are_those_of_autograd(autocast):
    linear = nn.Linear(12, 20).to(DEVICE)
    x = torch.randn(31, 12, device=DEVICE, requires_grad=True)
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=autocast):
        projected, same = project_beside(x, linear)
        expected = linear(x)
        found = projected.float().sin().sum() + (same.float() ** 2).sum()
        wanted = expected.float().sin().sum() + (x.float() ** 2).sum()
    assert projected.dtype == expected.dtype
    torch.testing.assert_close(projected, expected)
    inputs = (x, linear.weight, linear.bias)
    tolerance = 2e-2 if autocast else 1e-5
    for ours, theirs in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_what_is_kept_is_the_input_itself():
    linear, kept = nn.Linear(12, 20).to(DEVICE), []
    x = torch.randn(31, 12, device=DEVICE, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor),
        torch.autocast(DEVICE, dtype=torch.bfloat16),
    ):
        project_beside(x, linear)
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), linear.weight.data_ptr()}
