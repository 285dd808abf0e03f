"""Rotary positions in one pass."""

import pytest
import torch

from longtag.fused.rotate import rotate_
from longtag.model.rotary import rotation

from .conftest import DEVICE


@pytest.mark.parametrize(("batch", "tokens", "heads", "head_dim"), [(1, 9, 1, 2), (2, 7, 3, 6), (1, 5, 12, 64)])
def test_q_and_k_are_turned_by_their_positions_and_back_again(batch, tokens, heads, head_dim):
    start = torch.randn(batch, tokens, 3, heads, head_dim, device=DEVICE)
    turn = rotation(tokens, head_dim, torch.device(DEVICE))
    turned = start.clone()
    rotate_(turned, turn.cos, turn.sin)

    qk = start[:, :, :2].double()
    pairs = torch.complex(qk[..., : head_dim // 2], qk[..., head_dim // 2 :])
    angle = torch.complex(turn.cos[..., : head_dim // 2].double(), turn.sin[..., head_dim // 2 :].double())
    torch.testing.assert_close(torch.view_as_real(pairs * angle).unbind(-1), _halves(turned), rtol=1e-5, atol=1e-5)
    assert torch.equal(turned[:, :, 2], start[:, :, 2])

    rotate_(turned, turn.cos, turn.sin, back=True)
    torch.testing.assert_close(turned, start, rtol=1e-5, atol=1e-5)


def _halves(projected: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(half.double() for half in projected[:, :, :2].chunk(2, -1))
