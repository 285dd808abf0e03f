"""The copies of a CUDA device: on a stream of their own, beside the computation, and never in its way."""

import functools
import gc
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from longtag.memory import Levers
from longtag.memory.checkpointing import run_checkpointed
from longtag.memory.copies import SideStream, copies_for, side_stream
from longtag.model.encoder import Encoder
from sparse_attention import patterns

pytestmark = pytest.mark.gpu

NUM_TOKENS = 4096
SLOW = 20_000_000
"""Clock cycles, some 10 ms, that a copy waits before it begins."""


def stack(num_blocks: int, width: int = 512) -> tuple[list, torch.Tensor]:
    generator = torch.Generator("cuda").manual_seed(0)
    make = functools.partial(torch.randn, generator=generator, device="cuda")
    weights = [make(width, width).div(width**0.5).requires_grad_() for _ in range(num_blocks)]

    def block(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout((x @ weight).tanh(), 0.1) + x * 0.5

    return [functools.partial(block, weight) for weight in weights], make(NUM_TOKENS, width).requires_grad_()


def gradients(blocks: list, x: torch.Tensor, offload: bool) -> list[torch.Tensor]:
    torch.manual_seed(1)
    # A result of an operator, so that its memory is let go as that of the others.
    out = run_checkpointed(blocks, x * 1, every=1, offload=offload)
    return list(torch.autograd.grad(out.square().sum(), [x, *(block.args[0] for block in blocks)]))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copies begin long after they were asked for."""
    copy = SideStream._copy

    def late(self: SideStream, source: torch.Tensor, target: torch.Tensor):
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(SLOW)
        return copy(self, source, target)

    monkeypatch.setattr(SideStream, "_copy", late)
    yield
    torch.cuda.synchronize()


def poison() -> None:
    """NaN in all memory that is free, so that whoever reads too early reads it."""
    torch.cuda.empty_cache()
    blocks = [torch.full((2**24,), float("nan"), device="cuda") for _ in range(8)]
    del blocks


@pytest.mark.usefixtures("slow")
def test_slow_copies_change_no_bit_over_many_steps():
    for step in range(10):
        blocks, x = stack(8)
        expected = gradients(blocks, x, offload=False)
        poison()
        found = gradients(blocks, x, offload=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True)), step


@pytest.mark.usefixtures("slow")
def test_graphs_that_are_dropped_halfway_leave_the_memory_of_others_alone():
    blocks, x = stack(8)
    expected = gradients(blocks, x, offload=False)

    def fail(gradient):
        raise RuntimeError("in the middle")

    def failing(x):
        out = blocks[4](x)
        if out.requires_grad:
            out.register_hook(fail)
        return out

    for _ in range(3):
        out = run_checkpointed([*blocks[:4], failing, *blocks[5:]], x * 1, every=1, offload=True)
        with pytest.raises(RuntimeError, match="in the middle"):
            out.sum().backward()
        del out
        x.grad = None
        for block in blocks:
            block.args[0].grad = None
        # The memory of what was on its way is free, and is written at once.
        others = [torch.full((NUM_TOKENS, 512), 3.0, device="cuda") for _ in range(8)]
        torch.cuda.synchronize()
        assert all(bool((other == 3.0).all()) for other in others)
        del others
        gc.collect()
        found = gradients(blocks, x, offload=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_copy_of_any_size_comes_back_as_it_was():
    copies = copies_for(torch.empty(1, device="cuda"))
    assert isinstance(copies, SideStream)
    for size in (1, 4097, 50_000_001):
        data = torch.randint(255, (size,), dtype=torch.uint8, device="cuda")
        host, done = copies.send(data, 0)
        copies.wait(done)
        back, done = copies.fetch(host)
        copies.wait(done)
        copies.give_back(host)
        assert host.is_pinned()
        assert torch.equal(back, data)


def test_peak_memory_is_lower_by_the_boundaries_that_left():
    blocks, x = stack(12)
    peaks = {}
    for offload in (False, True, False, True):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients(blocks, x, offload)
        peaks[offload] = torch.cuda.max_memory_allocated() - before
    boundary = x.numel() * 4
    # Without: twelve at the start of backward. With: the last two, one on its way out, one on its way in.
    assert peaks[False] - peaks[True] >= 7 * boundary


def test_memory_and_buffers_do_not_grow_from_step_to_step():
    blocks, x = stack(8)
    pool = side_stream(x.device).pool
    sizes = set()
    gc.collect()
    for step in range(8):
        gradients(blocks, x, offload=True)
        torch.cuda.synchronize()
        if step > 1:
            sizes.add((pool.num_bytes, torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert len(sizes) == 1


def test_the_host_waits_for_nothing():
    blocks, x = stack(8)
    for _ in range(2):
        gradients(blocks, x, offload=True)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        start = time.perf_counter()
        torch.cuda._sleep(50 * SLOW)
        gradients(blocks, x, offload=True)
        asked = time.perf_counter() - start
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    assert asked < 0.5 * (time.perf_counter() - start)


def milliseconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


def test_copies_run_beside_the_computation(monkeypatch):
    def several(block, x):
        return functools.reduce(lambda y, _: block(y), range(10), x)

    blocks, x = stack(10, width=2048)

    def run(offload: bool) -> None:
        out = run_checkpointed([functools.partial(several, block) for block in blocks], x * 1, every=1, offload=offload)
        torch.autograd.grad(out.sum(), [x, *(block.args[0] for block in blocks)])

    without = milliseconds(lambda: run(False))
    cycles_per_millisecond = SLOW / milliseconds(lambda: torch.cuda._sleep(SLOW))
    # Backward takes three times as long as forward, so that of ten stages each has a fortieth in forward. Copies that
    # take half of that add a fifth, unless they run beside it.
    slow = int(0.5 * without / 40 * cycles_per_millisecond)
    copy = SideStream._copy

    def late(self: SideStream, source: torch.Tensor, target: torch.Tensor):
        with torch.cuda.stream(self.stream):
            torch.cuda._sleep(slow)
        return copy(self, source, target)

    monkeypatch.setattr(SideStream, "_copy", late)
    assert milliseconds(lambda: run(True)) < 1.1 * without


@pytest.mark.parametrize(
    "levers",
    [
        {"checkpoint": "blocks"},
        {"checkpoint": "blocks", "checkpoint_every": 2, "residual": "bfloat16"},
        {"checkpoint": "blocks", "tile_tokens": 512, "tile_heads": 2, "residual": "bfloat16"},
        {"checkpoint": "selective"},
        {"checkpoint": "selective", "tile_tokens": 512},
    ],
    ids=["blocks", "two blocks", "lean", "selective", "selective and tokens"],
)
@pytest.mark.usefixtures("slow")
def test_an_encoder_has_the_gradients_without_offload_to_the_bit(levers):
    layout = patterns.window(NUM_TOKENS, window=8, layout="index_list").to(torch.device("cuda"))
    found = {}
    for offload in (False, True):
        torch.manual_seed(0)
        encoder = Encoder(num_layers=8, d_model=256, num_heads=4, d_ff=512, levers=Levers(offload=offload, **levers))
        encoder = encoder.cuda()
        x = torch.randn(1, NUM_TOKENS, 256, device="cuda", requires_grad=True)
        steps = []
        for _ in range(3):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                out = encoder(x * 1, layout)
            steps.append(torch.autograd.grad(out.float().square().sum(), [x, *encoder.parameters()]))
        found[offload] = [gradient for step in steps for gradient in step]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found[True], found[False], strict=True))
