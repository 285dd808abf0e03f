"""What a step will need, against what it does need, and against what is known of it by hand."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch

from longtag.loss import mean
from longtag.memory import Levers
from longtag.memory.estimate import estimate
from longtag.memory.estimate.compose import count_composed
from longtag.memory.estimate.count import HEAD, count_standing, count_step
from longtag.memory.estimate.estimate import summed
from longtag.memory.estimate.longest import longest
from longtag.memory.even_tiles import some_tiles_only, tile_starts
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from sparse_attention import InParts, Layout, patterns
from sparse_attention.rules.to_index_list import to_index_list

from .conftest import CLASSES, D_FF, NUM_TOKENS, WIDTH, small_subject

BLOCKS = partial(Levers, checkpoint="blocks")
LEAN = BLOCKS(tile_tokens=700, tile_heads=2, residual="bfloat16")
KINDS = {
    "none": Levers(),
    "selective": Levers(checkpoint="selective"),
    "blocks": BLOCKS(),
    "every 2": BLOCKS(checkpoint_every=2),
    "lean": LEAN,
}


@pytest.mark.parametrize(
    ("levers", "in_backward"),
    [*((levers, False) for levers in KINDS.values()), (BLOCKS(), True)],
    ids=[*KINDS, "blocks, step in backward"],
)
def test_a_few_blocks_tell_exactly_what_all_of_them_need(levers, in_backward):
    subject = small_subject(levers, optim={"in_backward": in_backward})
    standing = count_standing(subject)
    whole = summed(subject, count_step(subject, subject.num_layers), standing)
    composed = summed(subject, count_composed(subject), standing)
    assert (composed.peak, composed.kept, composed.when) == (whole.peak, whole.kept, whole.when)
    assert (composed.cost.products, composed.cost.attention) == (whole.cost.products, whole.cost.attention)


@pytest.mark.parametrize("levers", [Levers(tile_tokens=256), replace(LEAN, tile_tokens=250)], ids=["tiles", "lean"])
def test_three_tiles_tell_what_all_of_them_need(levers, monkeypatch):
    subject = small_subject(levers, num_layers=1)
    few = estimate(subject)
    monkeypatch.setattr("longtag.memory.estimate.without_data.some_tiles_only", nullcontext)
    every = estimate(subject)
    # A scalar a tile is kept of the loss, 512 bytes of the allocator.
    assert abs(every.peak - few.peak) <= 512 * 9
    assert few.cost.products == pytest.approx(every.cost.products, rel=0.03)


def test_only_the_first_two_tiles_and_the_last_are_run_for_a_count():
    assert list(tile_starts(10, 3)) == [0, 3, 6, 9]
    with some_tiles_only():
        assert [list(tile_starts(rows, 3)) for rows in (2, 6, 7, 10)] == [[0], [0, 3], [0, 3, 6], [0, 3, 9]]


@pytest.mark.parametrize("levers", [KINDS[name] for name in ("none", "selective", "lean")])
def test_tensors_without_data_hold_what_tensors_with_data_hold(levers):
    """On the CPU, dense attention, where both are the same operators."""
    subject = small_subject(
        levers, pattern=patterns.dense, num_layers=4, tokens=512, device_type="cpu", precision="32-true"
    )
    counted = summed(subject, count_step(subject, 4), count_standing(subject))
    torch.manual_seed(0)
    model: TokenClassifier = subject.build_model(pattern=patterns.dense, num_layers=4, levers=levers)
    ids = torch.zeros(1, 512, dtype=torch.int64)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        cost = cost_of_tokens(model.head, subject.loss, model.encode(ids), ids, tile=levers.tile_tokens)
        loss = mean(cost, subject.loss.weight(ids))
        del cost
        kept = live.now
        model.zero_grad()
        loss.backward()
    # Sizes are rounded up to 512 bytes in the count, and weights' gradients of before stand beside it in forward.
    gradients = sum(parameter.nbytes for parameter in model.parameters())
    assert counted.kept == pytest.approx(kept, rel=0.01)
    peak = counted.gradients + counted.activations + counted.temporary - counted.batch - counted.lists
    assert live.peak * 0.98 <= peak <= live.peak * 1.02 + (gradients if "forward" in counted.when else 0)


def test_weights_gradients_and_states_are_sixteen_bytes_a_parameter():
    subject = small_subject()
    standing = count_standing(subject)
    block = 4 * WIDTH**2 + 2 * WIDTH * D_FF + 4 * WIDTH + WIDTH + D_FF + 4 * WIDTH
    for sizes, bytes_each in ((standing.weights, 4), (standing.gradients, 4), (standing.optimizer_states, 8)):
        assert sizes["block 3"] == pytest.approx(bytes_each * block, rel=0.02)
        assert sizes[HEAD] == pytest.approx(bytes_each * (CLASSES * WIDTH + CLASSES), rel=0.1)
    # Torch's fused AdamW makes no tensors, nor does clipping but for norms.
    assert standing.optimizer_step < 0.1 * sum(standing.weights.values())


def test_on_a_gpu_dropout_keeps_a_mask_of_one_byte_and_none_where_kernels_are_fused():
    kept = {
        (device, fused): estimate(small_subject(num_layers=3, device_type=device, model={"fused": fused})).kept
        for device, fused in (("cpu", False), ("cpu", True), ("cuda", False), ("cuda", True))
    }
    masks = NUM_TOKENS * (2 * WIDTH + D_FF) * 3
    assert kept["cpu", False] - kept["cuda", False] == pytest.approx(masks, rel=0.05)
    assert kept["cpu", True] == kept["cpu", False]
    assert kept["cuda", True] < kept["cuda", False] - masks


def test_what_kernels_take_for_themselves_is_counted():
    """Backward of attention holds a number of float32 for each head and listed key, which no tensor outside shows."""
    few, many = (
        estimate(
            small_subject(
                BLOCKS(), num_layers=1, pattern=partial(patterns.random, keys_per_query=keys), model={"d_ff": 8}
            )
        )
        for keys in (64, 128)
    )
    edges = NUM_TOKENS * 4 * 64
    lists = many.lists - few.lists
    assert many.peak - few.peak - lists >= 2 * 4 * edges * 0.9


def test_accumulated_batches_keep_their_gradients_through_backward():
    once, again = (estimate(small_subject(BLOCKS(), accumulates=accumulates)) for accumulates in (False, True))
    assert again.peak > once.peak
    assert again.gradients == sum(count_standing(small_subject()).gradients.values())


def test_the_categories_sum_to_the_peak_and_the_layers_to_what_is_kept():
    found = estimate(small_subject(BLOCKS()))
    parts = (found.weights, found.gradients, found.optimizer_states, found.activations, found.temporary)
    assert found.peak == sum(parts)
    assert all(part >= 0 for part in parts)
    assert sum(layer.activations for layer in found.layers) == found.kept
    assert found.temporary >= found.batch + found.lists + found.workspace


def test_the_longest_sequence_fits_and_a_longer_one_does_not():
    subject = small_subject(LEAN)
    standing, known = count_standing(subject), estimate(subject)
    room = known.peak + 2**26
    tokens = longest(subject, standing, room, known)
    assert tokens % 1000 == 0
    assert estimate(replace(subject, tokens=tokens)).peak <= room
    assert estimate(replace(subject, tokens=round(1.05 * tokens))).peak > room


def test_nothing_fits_into_less_than_the_weights():
    subject = small_subject()
    assert longest(subject, count_standing(subject), 1000, estimate(subject)) == 0


def a_list_beside_hubs_apart(num_tokens: int) -> Layout:
    hubs = patterns.hubs(num_tokens, num_hubs=5, window=9, layout="hubs_apart")
    listed = to_index_list(patterns.random(num_tokens, keys_per_query=4).rule - hubs.rule, num_tokens)
    return InParts([hubs, listed])


def test_the_longest_sequence_in_parts_is_found_without_drawing_its_keys():
    subject = small_subject(pattern=a_list_beside_hubs_apart)
    standing, room = count_standing(subject), 2**29
    found = longest(subject, standing, room, estimate(subject))
    longer, shorter = (estimate(replace(subject, tokens=tokens)).peak for tokens in (found * 11 // 10, found))
    assert shorter <= 1.01 * room < longer


@pytest.mark.parametrize(
    "pattern",
    [
        partial(patterns.window, window=100, layout="block_sparse"),
        partial(patterns.bigbird, block_size=64),
        partial(patterns.window, window=2, layout="index_list"),
        partial(patterns.hubs, num_hubs=5, window=9, layout="hubs_apart"),
        a_list_beside_hubs_apart,
        patterns.dense,
        partial(patterns.knn, num_nearest=4),
    ],
    ids=["block sparse", "bigbird", "index list", "hubs apart", "in parts", "dense", "chosen by content"],
)
def test_every_kind_of_layout_can_be_counted(pattern):
    found = estimate(small_subject(BLOCKS(), num_layers=1, pattern=pattern))
    assert found.kept > NUM_TOKENS * WIDTH * 4
    assert found.peak < 100 * NUM_TOKENS * WIDTH * 4 + 2**27


def test_narrow_weights_and_float16_are_followed():
    mixed, narrow = (estimate(small_subject(precision=precision)) for precision in ("bf16-mixed", "bf16-true"))
    assert narrow.weights == pytest.approx(mixed.weights / 2, rel=0.05)
    assert estimate(small_subject(precision="16-mixed")).peak == mixed.peak
