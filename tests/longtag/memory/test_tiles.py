import pytest
import torch
from torch import nn

from longtag.memory.live_bytes import LiveBytes
from longtag.memory.tiles import by_tiles, each_tile


@pytest.mark.parametrize("tile", [1, 4, 11, 23, 24, 100, None])
def test_values_and_gradients_are_those_of_all_rows_at_once(tile):
    x, y = (torch.randn(23, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)

    def local(x, y):
        return (x * y.sin()) @ weight

    out = by_tiles(local, x, y, tile=tile, draws=False)
    upstream = torch.randn_like(out)
    torch.testing.assert_close(out, local(x, y))
    found = torch.autograd.grad(out, (x, y, weight), upstream)
    expected = torch.autograd.grad(local(x, y), (x, y, weight), upstream)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_input_without_a_gradient_may_stand_beside_one_with():
    x, y = torch.randn(9, 2), torch.randn(9, 2, requires_grad=True)
    out = by_tiles(torch.mul, x, y, tile=4, draws=False)
    torch.testing.assert_close(torch.autograd.grad(out.sum(), y)[0], x)


def test_a_tile_that_nothing_was_made_of_has_a_gradient_of_zero():
    x = torch.randn(7, 2, requires_grad=True)
    _, second, _ = each_tile(x * 1, 3)
    (grad,) = torch.autograd.grad(2 * second.sum(), x)
    assert grad.tolist() == [[0, 0]] * 3 + [[2, 2]] * 3 + [[0, 0]]


def test_the_gradient_of_an_input_that_is_read_elsewhere_too_is_the_sum():
    x = torch.randn(7, 2, requires_grad=True)
    y = x * 1
    out = by_tiles(torch.sin, y, tile=3, draws=False) + y
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x)[0], x.cos() + 1)


def test_dropout_draws_the_same_mask_in_backward_and_another_one_for_each_tile():
    x = torch.ones(8, 64, requires_grad=True)
    torch.manual_seed(0)
    out = by_tiles(lambda rows: nn.functional.dropout(rows.exp(), 0.5), x, tile=4, draws=True)
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, out.detach())
    assert not torch.equal(out[:4], out[4:])


def test_backward_keeps_the_inputs_alone_and_holds_one_tile_of_what_lies_between():
    rows, width, hidden, tile = 512, 8, 256, 32
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, width)
    x = torch.randn(rows, width, requires_grad=True)

    def peak(run) -> tuple[int, int]:
        with LiveBytes() as live:
            out = run()
            kept = live.now
            out.sum().backward()
        return kept, live.peak

    def local(rows):
        return second(first(rows).relu())

    kept, most = peak(lambda: by_tiles(local, x, tile=tile, draws=False))
    kept_at_once, most_at_once = peak(lambda: local(x))
    bytes_of_rows, bytes_of_tile = rows * width * 4, tile * hidden * 4
    assert kept < bytes_of_rows + 4096
    # The output, its gradient and that of x; of the hidden features what a tile and its gradients need.
    assert most < 3 * bytes_of_rows + 5 * bytes_of_tile + 4 * 2 * width * hidden * 4
    assert kept_at_once > 8 * kept
    assert most_at_once > 4 * most


def test_a_cast_weight_is_not_shared_by_tiles_whose_gradients_would_then_be_added_up_in_bfloat16():
    torch.manual_seed(0)
    linear, x = nn.Linear(16, 16), torch.randn(4096, 16)
    exact = torch.autograd.grad(linear(x).square().sum(), linear.weight)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        at_once = torch.autograd.grad(linear(x).square().sum(), linear.weight)[0]
        out = by_tiles(linear, x, tile=16, draws=False)
        by_tile = torch.autograd.grad(out.square().sum(), linear.weight)[0]
    assert (by_tile - exact).norm() < 1.5 * (at_once - exact).norm()


def test_without_gradients_tiles_are_views_and_nothing_is_recorded():
    x = torch.randn(7, 2)
    assert all(part.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() for part in each_tile(x, 3))
    with torch.no_grad():
        out = by_tiles(nn.Linear(2, 4), x, tile=3, draws=False)
    assert not out.requires_grad
