"""A product that ends with the slope of ReLU and dropout."""

import pytest
import torch

from longtag.fused import masked_product, relu_dropout

from .conftest import DEVICE, relative_error


@pytest.mark.parametrize(("rows", "depth", "features"), [(1, 8, 8), (37, 24, 40), (129, 8, 264), (140, 72, 272)])
def test_values_and_column_sums_are_those_of_float64(rows, depth, features):
    # Half precision, because the interpreter multiplies bfloat16 as if it were integers.
    a, b = (torch.randn(*shape, device=DEVICE).half() for shape in ((rows, depth), (depth, features)))
    mask = torch.relu(torch.randn(rows, features, device=DEVICE)).half()
    out, sums = masked_product.masked_product(a, b, mask, 1.25)
    exact = (a.double() @ b.double()) * (mask > 0) * 1.25
    assert relative_error(out, exact) < 1e-3
    assert relative_error(sums, exact.sum(0)) < 1e-4
    assert not out[mask == 0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("features", [40, 43])
def test_every_dtype_and_width_has_a_way(dtype, features):
    gradient, weight = torch.randn(50, 24, device=DEVICE).to(dtype), torch.randn(24, features, device=DEVICE).to(dtype)
    out = torch.relu(torch.randn(50, features, device=DEVICE)).to(dtype)
    found, bias = relu_dropout.times_slope(gradient, weight, out, 0.2)
    exact = (gradient.double() @ weight.double()) * (out > 0) / 0.8
    assert relative_error(found, exact) < 2e-3
    assert relative_error(bias, exact.sum(0)) < 2e-3


def test_what_it_cannot_multiply_is_said():
    half = torch.zeros(8, 16, dtype=torch.float16)
    assert "float32" in (masked_product.why_not(half.float(), half.float()) or "")
    assert "16 bytes" in (masked_product.why_not(half, torch.zeros(16, 12, dtype=torch.float16)) or "")
