"""Where a block is fused."""

import pytest
import torch

from longtag.data.source import TokenIds
from longtag.fused import why_not
from longtag.memory import Levers
from longtag.model import TokenClassifier, block, rotary
from longtag.model.block import Norm
from sparse_attention import patterns

from .conftest import DEVICE


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_on_a_cpu_torch_does_it():
    assert "GPU" in (why_not(torch.zeros(3, 8)) or "")


@pytest.mark.gpu
def test_what_a_gpu_can_take_is_fused_and_the_rest_has_a_reason():
    assert why_not(torch.zeros(3, 8, device="cuda")) is None
    assert "coarse" in (why_not(torch.zeros(3, 8, device="cuda", dtype=torch.float64)) or "")
    assert "wider" in (why_not(torch.zeros(3, 8193, device="cuda")) or "")


LEVERS = {
    "fast": Levers(),
    "residual": Levers(residual="bfloat16"),
    "blocks": Levers(checkpoint="blocks"),
    "two blocks": Levers(checkpoint="blocks", checkpoint_every=2),
    "selective": Levers(checkpoint="selective"),
    "tokens": Levers(tile_tokens=100),
    "lean": Levers(checkpoint="blocks", tile_tokens=100, tile_heads=2, residual="bfloat16"),
}


def gradient(norm: Norm, levers: Levers, *, num_tokens: int, fused: bool, autocast: bool = False) -> torch.Tensor:
    """Of all weights of a model, in a row."""
    torch.manual_seed(0)
    model = TokenClassifier(
        inputs=TokenIds(11), num_classes=5, pattern=lambda n: patterns.random(n, keys_per_query=4), num_layers=3,
        num_heads=4, d_model=64, d_ff=128, dropout=0.0, norm=norm, position="rotary", levers=levers, fused=fused,
    ).to(DEVICE)  # fmt: skip
    ids = torch.randint(11, (1, num_tokens), device=DEVICE)
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=autocast):
        cost = model(ids).float().square().mean()
    return torch.cat([part.flatten() for part in torch.autograd.grad(cost, list(model.parameters()))])


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("levers", LEVERS.values(), ids=LEVERS)
def test_a_model_has_the_gradients_of_torchs_operations(norm, levers, monkeypatch):
    exact = gradient(norm, levers, num_tokens=130, fused=False)
    # Interpreted on a CPU, which else is left to torch.
    monkeypatch.setattr(block, "why_not", lambda x: None)
    monkeypatch.setattr(rotary, "why_not", lambda x: None)
    found = gradient(norm, levers, num_tokens=130, fused=True)
    assert 0 < (found - exact).norm() < 1e-4 * exact.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("levers", LEVERS.values(), ids=LEVERS)
def test_under_autocast_a_model_is_as_exact_as_with_torchs_operations(norm, levers):
    exact = gradient(norm, levers, num_tokens=777, fused=False)
    theirs, ours = (
        gradient(norm, levers, num_tokens=777, fused=fused, autocast=True) - exact for fused in (False, True)
    )
    assert ours.norm() < 1.3 * theirs.norm()
