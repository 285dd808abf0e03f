import pytest
import torch

from longtag.optim.rounding import joined, split, stochastic

EVERY_NOISE = torch.arange(2**16, dtype=torch.int32)
NAN_OF_CUDA = torch.tensor([0x7FFFFFFF, -1], dtype=torch.int32).view(torch.float32)


def numbers() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    of_all_sizes = torch.randint(-(2**31), 2**31, (100_000,), generator=generator).int().view(torch.float32)
    some = torch.tensor([0.0, -0.0, 1.0, 1 + 2**-8, -1 - 2**-8, 1e-45, 3.3e38, float("inf"), -float("inf")])
    return torch.cat((of_all_sizes[of_all_sizes.isfinite()], some))


def test_both_halves_of_a_split_number_give_it_back_to_the_bit():
    x = numbers()
    rounded, cut_off = split(x)
    assert (rounded.dtype, cut_off.dtype) == (torch.bfloat16, torch.int16)
    assert torch.equal(joined(rounded, cut_off).view(torch.int32), x.view(torch.int32))


def test_the_upper_half_of_a_split_number_is_the_nearest_in_bfloat16():
    x = numbers()
    x = x[x.abs() < 3e38]
    assert torch.equal((split(x)[0].double() - x).abs(), (x.bfloat16().double() - x).abs())


@pytest.mark.parametrize("x", [0.1, -0.1, 1.0, 1 + 2**-20, -3e-5, 12345.678])
def test_the_mean_over_all_noise_is_the_number(x):
    x = torch.tensor(x)
    found = stochastic(x.expand(2**16).contiguous(), EVERY_NOISE).double()
    assert found.mean().item() == pytest.approx(x.item(), rel=1e-12)
    assert found.max() - found.min() <= 2**-7 * x.abs()


def test_what_is_no_number_stays_none():
    noise = torch.full((2,), 0xFFFF, dtype=torch.int32)
    assert stochastic(NAN_OF_CUDA, noise).isnan().all()
    assert split(NAN_OF_CUDA)[0].isnan().all()
