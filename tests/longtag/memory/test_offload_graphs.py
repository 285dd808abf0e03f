"""Boundaries on the host under every use of a graph: again, in parts, in another order, dropped, and through views."""

import functools
import gc

import pytest
import torch
from torch import Tensor

from longtag.memory.live_bytes import LiveBytes
from longtag.memory.offload import Offload

from .stack import BOUNDARY, SHAPE, assert_same, gradients, run, stack


def test_two_graphs_at_once_have_buffers_of_their_own(copies):
    blocks, x = stack()
    expected = gradients(run(blocks, x, offload=False), blocks, x)
    first, second = run(blocks, x, offload=True), run(blocks, x, offload=True)
    assert copies.pool.num_bytes == 8 * BOUNDARY
    assert_same(gradients(first, blocks, x), expected)
    assert_same(gradients(second, blocks, x), expected)


def test_a_second_backward_through_one_graph_finds_the_boundaries(copies):
    blocks, x = stack()
    cost = run(blocks, x, offload=True)
    first = gradients(cost, blocks, x, retain_graph=True)
    assert_same(gradients(cost, blocks, x), first)
    assert copies.count("fetch") == 8


def test_parts_of_a_graph_can_be_run_backward_in_any_order(copies):
    blocks, x = stack()
    weights = [block.args[0] for block in blocks]

    def found(offload: bool) -> list[Tensor]:
        outs = []

        def noted(block, x):
            out = block(x)
            if len(outs) < len(blocks):
                outs.append(out)
            return out

        cost = run([functools.partial(noted, block) for block in blocks], x, offload=offload)
        return [
            torch.autograd.grad(outs[2].sum(), weights[1], retain_graph=True)[0],
            torch.autograd.grad(cost, weights[4], retain_graph=True)[0],
            torch.autograd.grad(outs[4].sum(), x, retain_graph=True)[0],
            torch.autograd.grad(outs[0].sum(), weights[0], retain_graph=True)[0],
            *gradients(cost, blocks, x),
        ]

    assert_same(found(True), found(False))


def test_after_an_exception_in_backward_all_buffers_are_free(copies):
    blocks, x = stack()

    def fail(gradient):
        raise RuntimeError("in the middle")

    def failing(x):
        out = blocks[3](x)
        if torch.is_grad_enabled() and out.requires_grad:
            out.register_hook(fail)
        return out

    cost = run([*blocks[:3], failing, *blocks[4:]], x, offload=True)
    with pytest.raises(RuntimeError, match="in the middle"):
        cost.backward()
    del cost
    gc.collect()
    copies.run_all()
    expected = gradients(run(blocks, x, offload=False), blocks, x)
    assert_same(gradients(run(blocks, x, offload=True), blocks, x), expected)
    assert copies.pool.num_bytes == 4 * BOUNDARY


def test_after_an_exception_in_forward_all_buffers_are_free(copies):
    blocks, x = stack()

    def failing(x):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        run([*blocks[:4], failing, failing, failing], x, offload=True)
    gc.collect()
    cost = run(blocks, x, offload=True)
    # Of seven stages five had sent theirs.
    assert copies.pool.num_bytes == 5 * BOUNDARY
    cost.backward()


@pytest.mark.parametrize("backward", [False, True], ids=["dropped", "run backward"])
def test_nothing_outlives_the_graph(backward, copies):
    blocks, x = stack()
    gc.disable()
    try:
        with LiveBytes() as live:
            cost = run(blocks, x, offload=True)
            if backward:
                gradients(cost, blocks, x)
            del cost
            copies.run_all()
            assert live.now == copies.pool.num_bytes
            copies.pool.take(BOUNDARY)
            assert copies.pool.num_bytes == 4 * BOUNDARY
    finally:
        gc.enable()


class Squared(torch.autograd.Function):
    """Keeps several views of one tensor, one of them of another dtype."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, x.t(), x[3:5, 1:], x.view(torch.bfloat16), x[:1].clone())
        return x * x

    @staticmethod
    def backward(ctx, grad):
        x, turned, part, halves, copied = ctx.saved_tensors
        assert torch.equal(x.t(), turned)
        assert turned.stride() == (1, SHAPE[1])
        assert torch.equal(x[3:5, 1:], part)
        assert torch.equal(x.view(torch.int16), halves.view(torch.int16))
        assert torch.equal(x[:1], copied)
        return 2 * x * grad


def test_views_of_one_memory_are_moved_once_and_come_back_as_they_were(copies):
    x = torch.randn(*SHAPE, requires_grad=True)
    trip = Offload(3)
    y = x * 1
    with trip.stage(y):
        out: Tensor = Squared.apply(y)  # pyright: ignore[reportAssignmentType]
    for _ in range(2):
        with trip.stage(out):
            out = out + 1
    assert copies.count("send") == 1
    (grad,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(grad, 2 * x)
    assert copies.count("fetch") == 1


def test_tensors_of_one_shape_and_different_memory_are_not_taken_for_one(copies):
    x = torch.randn(*SHAPE, requires_grad=True)
    trip = Offload(3)
    with trip.stage(x):
        out = (x * 2).sin() * (x * 3).cos()
    for _ in range(2):
        with trip.stage(out):
            pass
    (expected,) = torch.autograd.grad(((x * 2).sin() * (x * 3).cos()).sum(), x)
    (found,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(found, expected)
    assert copies.count("send") == 4


def test_part_of_a_larger_memory_stays(copies):
    large = torch.randn(2 * SHAPE[0], SHAPE[1])
    weight = torch.ones(16, 16, requires_grad=True)
    trip = Offload(3)
    with trip.stage(large[: SHAPE[0]]):
        out = large[: SHAPE[0]] @ weight
    assert copies.log == []
    (grad,) = torch.autograd.grad(out.sum(), weight)
    assert torch.equal(grad, large[: SHAPE[0]].t() @ torch.ones(*SHAPE))
