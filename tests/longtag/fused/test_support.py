"""Where a block is fused."""

import pytest
import torch

from longtag.data.source import TokenIds
from longtag.fused import why_not
from longtag.memory import Levers
from longtag.model import TokenClassifier
from sparse_attention import patterns


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_on_a_cpu_torch_does_it():
    assert "GPU" in (why_not(torch.zeros(3, 8)) or "")


@pytest.mark.gpu
def test_what_a_gpu_can_take_is_fused_and_the_rest_has_a_reason():
    assert why_not(torch.zeros(3, 8, device="cuda")) is None
    assert "coarse" in (why_not(torch.zeros(3, 8, device="cuda", dtype=torch.float64)) or "")
    assert "wider" in (why_not(torch.zeros(3, 8193, device="cuda")) or "")


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    "levers",
    [
        Levers(),
        Levers(residual="bfloat16"),
        Levers(checkpoint="blocks"),
        Levers(checkpoint="blocks", checkpoint_every=2),
        Levers(checkpoint="selective"),
        Levers(tile_tokens=100),
        Levers(checkpoint="blocks", tile_tokens=100, tile_heads=2, residual="bfloat16"),
    ],
    ids=["fast", "residual", "blocks", "two blocks", "selective", "tokens", "lean"],
)
def test_a_model_has_the_gradients_of_torchs_operations(norm, levers):
    def gradient(*, fused: bool, autocast: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = TokenClassifier(
            inputs=TokenIds(11), num_classes=5, pattern=lambda n: patterns.random(n, keys_per_query=4), num_layers=3,
            num_heads=4, d_model=64, d_ff=128, dropout=0.0, norm=norm, position="rotary", levers=levers, fused=fused,
        ).cuda()  # fmt: skip
        ids = torch.randint(11, (1, 777), device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
            cost = model(ids).float().square().mean()
        return torch.cat([part.flatten() for part in torch.autograd.grad(cost, list(model.parameters()))])

    exact = gradient(fused=False, autocast=False)
    assert (gradient(fused=True, autocast=False) - exact).norm() < 1e-4 * exact.norm()
    theirs, ours = (gradient(fused=fused, autocast=True) - exact for fused in (False, True))
    assert ours.norm() < 1.3 * theirs.norm()
