"""The hash that stands for dropout's random numbers."""

import pytest
import torch

from longtag.fused import sum_norm

from .conftest import DEVICE

ROWS, FEATURES = 128, 512


def kept(seed: int, p: float, first_row: int = 0) -> torch.Tensor:
    """(ROWS, FEATURES), 1 where an element stays."""
    ones = torch.ones(ROWS, FEATURES, device=DEVICE)
    dropout = sum_norm.Dropout(p, torch.tensor([seed], device=DEVICE), 0, first_row)
    out, _, _ = sum_norm.sum_norm(
        torch.zeros_like(ones), ones, None, dropout, None, sum_dtype=torch.float32, out_dtype=torch.float32
    )
    return (out > 0).float()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1, -(2**62) - 7, 2**40])
def test_the_right_share_is_dropped_in_every_row_and_column(seed, p):
    stays = kept(seed, p)
    assert abs(stays.mean().item() - (1 - p)) < 5 * (p * (1 - p) / stays.numel()) ** 0.5
    for axis, size in ((0, ROWS), (1, FEATURES)):
        # Each share is that of `size` draws: their spread is the binomial's.
        assert stays.mean(axis).std().item() == pytest.approx((p * (1 - p) / size) ** 0.5, rel=0.2)


def test_neighbours_rows_and_seeds_are_not_correlated():
    stays = kept(11, 0.5) * 2 - 1
    others = [stays.roll(1, 0), stays.roll(1, 1), stays.roll(64, 0), stays.roll(64, 1), kept(12, 0.5) * 2 - 1]
    for other in [*others, kept(11 + 2**32, 0.5) * 2 - 1]:
        assert abs((stays * other).mean().item()) < 5 / stays.numel() ** 0.5


def test_rows_keep_their_masks_when_they_are_cut_off():
    assert torch.equal(kept(4, 0.3)[100:], kept(4, 0.3, first_row=100)[:-100])


def test_rows_past_two_to_the_32_have_masks_of_their_own():
    assert not torch.equal(kept(4, 0.5), kept(4, 0.5, first_row=2**32))
