import pytest
import torch
from lightning.fabric.plugins.precision.amp import _optimizer_handles_unscaling
from torch import nn

from longtag.optim.adamw import AdamW


def test_it_is_fused_and_gradients_may_be_clipped_in_mixed_precision():
    optimizer = AdamW([{"params": [nn.Parameter(torch.ones(3))]}])
    assert optimizer.param_groups[0]["fused"]
    assert not _optimizer_handles_unscaling(optimizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_goes_on_from_a_checkpoint_of_an_optimizer_that_was_not_fused(dtype):
    straight, changed = (nn.Parameter(torch.linspace(-1, 1, 7, dtype=dtype)) for _ in range(2))
    usual, first = torch.optim.AdamW([straight]), torch.optim.AdamW([changed], foreach=True)
    for optimizer, parameter in ((usual, straight), (usual, straight), (first, changed)):
        parameter.grad = parameter.detach().clone()
        optimizer.step()
    second = AdamW([{"params": [changed]}])
    second.load_state_dict(first.state_dict())
    changed.grad = changed.detach().clone()
    second.step()
    assert second.param_groups[0]["fused"]
    torch.testing.assert_close(changed, straight)
