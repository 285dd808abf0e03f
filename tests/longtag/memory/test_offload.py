"""What goes to the host, when, and how much that leaves on the device."""

import functools
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from longtag.memory import Levers
from longtag.memory.copies import copies_for
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.offload import previous_comes_behind

from .conftest import cost_and_gradients, small_model
from .stack import BOUNDARY, assert_same, gradients, run, stack

LEVERS = {
    "blocks": {"checkpoint": "blocks"},
    "two blocks": {"checkpoint": "blocks", "checkpoint_every": 2},
    "lean": {"checkpoint": "blocks", "tile_tokens": 10, "tile_heads": 3, "residual": "bfloat16"},
    "selective": {"checkpoint": "selective"},
    "selective and tokens": {"checkpoint": "selective", "tile_tokens": 10},
}


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("precision", ["float32", "autocast"])
@pytest.mark.parametrize("levers", LEVERS.values(), ids=LEVERS.keys())
def test_gradients_are_those_without_offload_to_the_bit(levers, precision, norm, copies):
    def found(**options):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
            return cost_and_gradients(small_model(Levers(**levers, **options), num_layers=6, norm=norm))

    expected, ours = found(), found(offload=True)
    assert_same(ours.values(), expected.values())
    assert copies.count("send") == copies.count("fetch") > 0


@pytest.mark.parametrize(("every", "num_moved"), [(1, 4), (2, 1), (4, 0), (6, 0)])
def test_all_boundaries_but_the_last_two_go_to_the_host_and_come_back_once(every, num_moved, copies):
    blocks, x = stack()
    gradients(run(blocks, x, every=every, offload=True), blocks, x)
    assert copies.count("send") == copies.count("fetch") == num_moved
    assert copies.pool.num_bytes == num_moved * BOUNDARY


def test_with_selective_checkpointing_the_attention_output_goes_too(copies):
    cost_and_gradients(small_model(Levers(checkpoint="selective", offload=True), num_layers=5))
    assert copies.count("send") == copies.count("fetch") == 2 * 3


def test_a_boundary_is_on_its_way_one_stage_before_it_is_needed(copies):
    blocks, x = stack(5)
    order = []

    def logged(number, x):
        order.append((f"run {number}", len(copies.log)))
        return blocks[number](x)

    cost = run([functools.partial(logged, number) for number in range(5)], x, offload=True)
    start, order[:] = len(copies.log), []
    gradients(cost, blocks, x)
    assert copies.log[start:] == [
        # Boundaries 0, 1 and 2 were copies 1, 2 and 3; 4 and 3 are there.
        ("fetch", 4),
        ("wait", 4),
        ("fetch", 5),
        ("wait", 5),
        ("fetch", 6),
        ("wait", 6),
    ]
    asked_for = [number - start for _, number in order]
    assert [name for name, _ in order] == ["run 4", "run 3", "run 2", "run 1", "run 0"]
    assert asked_for == [0, 1, 3, 5, 6]


@pytest.mark.parametrize("names", [False, True])
def test_a_stage_that_names_a_place_calls_the_one_before_when_backward_has_come_there(names, copies):
    blocks, x = stack(5)
    asked_for = []

    def probed(block, x):
        place = block(x)
        if names:
            previous_comes_behind(place)
        behind = place.sin()
        out = behind.sin()
        for tensor in (behind, place):
            tensor.register_hook(lambda _: asked_for.append(copies.count("fetch")))
        return out

    blocks_probed = [functools.partial(probed, block) for block in blocks]
    found = gradients(run(blocks_probed, x, offload=True), blocks, x)
    # Those of blocks 4 and 3 are there. A pair for each block, the last one first: behind the place, and at it.
    assert asked_for == ([0, 0, 0, 1, 1, 2, 2, 3, 3, 3] if names else [0, 0, 1, 1, 2, 2, 3, 3, 3, 3])
    assert_same(found, gradients(run(blocks_probed, x, offload=False), blocks, x))


def test_forward_waits_for_no_copy_younger_than_two_stages(copies):
    blocks, x = stack(6)
    run(blocks, x, offload=True)
    assert copies.log == [
        *[("send", 1), ("send", 2), ("wait", 1), ("send", 3), ("wait", 2), ("send", 4), ("wait", 3), ("wait", 4)]
    ]


def test_nothing_moves_without_gradients(copies):
    blocks, x = stack()
    with torch.no_grad():
        run(blocks, x, offload=True)
    for checkpoint in ("blocks", "selective"):
        model = small_model(Levers(checkpoint=checkpoint, offload=True), num_layers=5)
        with torch.no_grad():
            model(torch.randint(5, (1, 20)))
    assert copies.log == []


def test_on_a_cpu_nothing_moves():
    assert copies_for(torch.empty(3)) is None
    blocks, x = stack()
    with LiveBytes() as live:
        cost = run(blocks, x, offload=False)
        kept = live.now
        del cost
        assert live.now == 0
        cost = run(blocks, x, offload=True)
        assert live.now == kept
        cost.backward()


def device_bytes(every: int, offload: bool, num_blocks: int) -> tuple[int, int]:
    """Bytes that forward leaves on the device, and the most there are in backward, of tensors without data."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        blocks, x = stack(num_blocks)
        blocks = [functools.partial(block.func, mode.from_tensor(block.args[0])) for block in blocks]
        x = mode.from_tensor(x)
        with LiveBytes() as live:
            cost = run(blocks, x, every=every, offload=offload)
            kept, live.peak = live.now, 0
            cost.backward()
    return kept, live.peak


@pytest.mark.parametrize("every", [1, 2])
def test_of_tensors_without_data_those_on_the_device_are_counted(every):
    (kept, peak), (kept_without, peak_without) = (device_bytes(every, offload, 8 * every) for offload in (True, False))
    # Of eight stages the last two keep theirs, and what enters the first was there before.
    assert kept_without - kept == 5 * BOUNDARY
    assert BOUNDARY <= peak_without - peak <= 5 * BOUNDARY


def test_in_backward_one_boundary_beside_that_of_the_running_stage_is_on_the_device():
    shallow, deep = (device_bytes(1, True, num_blocks)[1] for num_blocks in (6, 12))
    # Gradients of six more weights.
    assert deep - shallow <= 6 * 16 * 16 * 4


def test_buffers_are_used_again_in_every_step(copies):
    sizes = []
    for _ in range(3):
        blocks, x = stack()
        gradients(run(blocks, x, offload=True), blocks, x)
        sizes.append(copies.pool.num_bytes)
    assert sizes == [4 * BOUNDARY] * 3


def test_gradients_of_several_batches_add_up(copies):
    blocks, x = stack()
    summed = {}
    for offload in (False, True):
        for scale in (1.0, 0.5, -2.0):
            (scale * run(blocks, x, offload=offload)).backward()
        summed[offload] = [block.args[0].grad for block in blocks]
        for block in blocks:
            block.args[0].grad = None
    assert_same(summed[True], summed[False])
    assert copies.pool.num_bytes == 4 * BOUNDARY


def test_several_devices_train_as_without(copies, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        found = {}
        for offload in (False, True):
            model = small_model(Levers(checkpoint="blocks", offload=offload), num_layers=5)
            torch.manual_seed(1)
            parallel = torch.nn.parallel.DistributedDataParallel(model)
            parallel(torch.arange(40).remainder(5).view(1, -1)).square().sum().backward()
            found[offload] = [parameter.grad for parameter in model.parameters()]
    finally:
        torch.distributed.destroy_process_group()
    assert_same(found[True], found[False])
    assert copies.count("fetch") == 3


def test_the_memory_of_a_boundary_is_let_go_in_forward(copies):
    blocks, x = stack()
    storages = []

    def noted(number, x):
        storages.append(weakref.ref(x.untyped_storage()))
        alive.append([number for number, storage in enumerate(storages) if storage() is not None])
        return blocks[number](x)

    alive = []
    cost = run([functools.partial(noted, number) for number in range(6)], x, offload=True)
    # 0 is x.
    assert alive == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    assert [number for number, storage in enumerate(storages) if storage() is not None] == [0, 4, 5]
    cost.backward()
