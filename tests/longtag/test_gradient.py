"""The norm of all gradients, and clipping by it."""

import pytest
import torch

from longtag.gradient import clip_gradients


def weights(scale: float, device: str = "cpu") -> list[torch.nn.Parameter]:
    made = [torch.nn.Parameter(torch.zeros(3, device=device)), torch.nn.Parameter(torch.zeros(2, device=device))]
    for number, weight in enumerate(made):
        weight.grad = torch.full_like(weight, scale * (number + 1))
    return made


def gradients(parameters: list[torch.nn.Parameter]) -> list[list[float]]:
    return [parameter.grad.tolist() for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize(
    ("algorithm", "clip"),
    [("norm", torch.nn.utils.clip_grad_norm_), ("value", torch.nn.utils.clip_grad_value_)],
    ids=["norm", "value"],
)
def test_clipping_is_that_of_torch_and_gives_the_norm_before(algorithm, clip):
    ours, theirs = weights(2.0), weights(2.0)
    assert float(clip_gradients(ours, 1.5, algorithm)) == pytest.approx((3 * 4 + 2 * 16) ** 0.5)  # pyright: ignore[reportArgumentType]
    clip(theirs, 1.5)
    assert gradients(ours) == gradients(theirs) != gradients(weights(2.0))


def test_without_a_limit_gradients_stay():
    ours = weights(2.0)
    assert clip_gradients(ours, None, "norm") is not None
    assert gradients(ours) == gradients(weights(2.0))


def test_a_norm_that_is_not_finite_divides_nothing():
    ours = weights(1.0)
    assert ours[0].grad is not None
    ours[0].grad[1] = torch.nan
    norm = clip_gradients(ours, 0.1, "norm")
    assert norm is not None
    assert norm.isnan()
    assert gradients(ours)[1] == [2, 2]


def test_where_no_gradient_is_left_there_is_no_norm():
    assert clip_gradients([torch.nn.Parameter(torch.zeros(3))], 1.0, "norm") is None


@pytest.mark.gpu
def test_clipping_does_not_wait_for_the_device():
    ours = weights(2.0, "cuda")
    clip_gradients(ours, 1.5, "norm")
    torch.cuda.set_sync_debug_mode("error")
    try:
        norm = clip_gradients(ours, 1.0, "norm")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert norm is not None
    assert float(norm) == pytest.approx(1.5, rel=1e-4)
