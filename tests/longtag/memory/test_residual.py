import pytest
import torch

from longtag.memory import Levers
from longtag.memory.residual import narrowed, sum_to_norm

from .conftest import small_model


@pytest.mark.parametrize(
    ("residual", "autocast", "expected"),
    [("bfloat16", True, torch.bfloat16), ("float32", True, torch.float32), ("bfloat16", False, torch.float32)],
)
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_what_runs_from_block_to_block_has_the_dtype_that_was_asked_for(residual, autocast, expected, norm):
    model = small_model(Levers(residual=residual), norm=norm)
    seen = []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda module, args, out: seen.extend([args[0].dtype, out.dtype]))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        model.encode(torch.randint(5, (1, 20)))
    assert set(seen) == {expected}


def test_the_sum_before_a_norm_loses_no_bits_of_a_narrow_stream():
    x, branch = torch.randn(1000).bfloat16(), torch.randn(1000).bfloat16()
    expected = x.double() + branch.double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sum_to_norm(x, branch.clone(), "bfloat16")
    torch.testing.assert_close(found.double(), expected, rtol=1e-7, atol=0)
    assert not torch.equal((x + branch).double(), expected)


def test_outside_of_autocast_nothing_is_rounded():
    x = torch.randn(10)
    assert narrowed(x, "bfloat16") is x
    assert torch.equal(sum_to_norm(x, x, "bfloat16"), x + x)
