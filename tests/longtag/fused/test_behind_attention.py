"""Values and gradients of all that follows attention, against plain torch in float64."""

from functools import partial

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from longtag.fused import BehindAttention, behind_attention, sum_norm
from longtag.fused.behind_attention import SEEDS, _Halves

from .conftest import DEVICE, Masks, gradients, in_float64, plain, random_rows, random_weights, relative_error

ROWS, WIDTH, HIDDEN = 13, 24, 40
EXACT = partial(BehindAttention, eps=1e-5, product=torch.float32, stream=torch.float32)
WAYS = {
    "kept": {},
    "recomputed": {"recompute": True},
    "by tiles": {"recompute": True, "tile": 5},
    "in a longer tile": {"recompute": True, "tile": 1000},
}


@pytest.mark.parametrize("projected", [False, True], ids=["with projection", "projected already"])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("way", WAYS)
def test_values_and_all_gradients_are_those_of_plain_torch_in_float64(way, norm, projected):
    x, attended = random_rows(ROWS, WIDTH), random_rows(ROWS, WIDTH)
    weights = random_weights(WIDTH, HIDDEN, norm, projected=projected)
    upstream = torch.randn(ROWS, WIDTH, device=DEVICE)
    out = behind_attention(x, attended, weights, EXACT(dropout=0.0, **WAYS[way]))
    exact_x, exact_attended, exact_weights = in_float64(x, attended, weights)
    exact = plain(exact_x, exact_attended, exact_weights)

    assert relative_error(out, exact) < 1e-6
    found = gradients(out, [x, attended, *weights], upstream)
    for ours, theirs in zip(found, gradients(exact, [exact_x, exact_attended, *exact_weights], upstream), strict=True):
        assert relative_error(ours, theirs) < 2e-6


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_with_dropout_the_gradient_is_that_of_the_masks_that_were_drawn(norm):
    x, attended = random_rows(ROWS, WIDTH), random_rows(ROWS, WIDTH)
    weights = random_weights(WIDTH, HIDDEN, norm)
    upstream = torch.randn(ROWS, WIDTH, device=DEVICE)
    torch.manual_seed(5)
    out = behind_attention(x, attended, weights, EXACT(dropout=0.4))
    found = gradients(out, [x, attended, *weights], upstream)

    torch.manual_seed(5)
    seeds = torch.empty(SEEDS, dtype=torch.int64, device=DEVICE).random_()
    masks = Masks(*(mask_of(seeds, place, width) for place, width in enumerate((WIDTH, HIDDEN, WIDTH))))
    exact_x, exact_attended, exact_weights = in_float64(x, attended, weights)
    exact = plain(exact_x, exact_attended, exact_weights, masks)
    assert relative_error(out, exact) < 1e-6
    for ours, theirs in zip(found, gradients(exact, [exact_x, exact_attended, *exact_weights], upstream), strict=True):
        assert relative_error(ours, theirs) < 2e-6


def mask_of(seeds: torch.Tensor, place: int, width: int) -> torch.Tensor:
    """What dropout of 0.4 makes of ones."""
    ones, dropout = torch.ones(ROWS, width, device=DEVICE), sum_norm.Dropout(0.4, seeds, place)
    return sum_norm.sum_norm(
        torch.zeros_like(ones), ones, None, dropout, None, sum_dtype=torch.float32, out_dtype=torch.float32
    )[0].double()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_draws_the_same_masks_however_the_rows_are_cut(norm):
    x, attended = random_rows(ROWS, WIDTH), random_rows(ROWS, WIDTH)
    weights, upstream = random_weights(WIDTH, HIDDEN, norm), torch.randn(ROWS, WIDTH, device=DEVICE)
    results = []
    for way in WAYS.values():
        torch.manual_seed(3)
        out = behind_attention(x, attended, weights, EXACT(dropout=0.3, **way))
        results.append([out, *gradients(out, [x, attended, *weights], upstream)])
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            assert relative_error(ours, theirs) < 1e-6


@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_spent_attention_leaves_its_memory_to_its_gradient_and_backward_may_run_again(norm, tile):
    weights = random_weights(WIDTH, HIDDEN, norm, projected=True)
    x, source = random_rows(ROWS, WIDTH), random_rows(ROWS, WIDTH)
    upstream = torch.randn(ROWS, WIDTH, device=DEVICE)
    # Held, so that no memory is used twice.
    made, reached = [], []

    def addresses(tensors):
        return {tensor.data_ptr() for tensor in tensors}

    def run(spends):
        def block(x, source):
            # Made anew, as groups of heads make it, and kept by nobody else.
            attended = source * 2
            made.append(attended)
            attended.register_hook(reached.append)
            settings = EXACT(dropout=0.4, recompute=True, tile=tile, spends=spends)
            return behind_attention(x, attended, weights, settings)

        torch.manual_seed(5)
        out = checkpoint(block, x, source, use_reentrant=False)
        inputs = [x, source, *(weight for weight in weights if weight is not None)]
        once, again = (torch.autograd.grad(out, inputs, upstream, retain_graph=True) for _ in range(2))
        return once, again

    expected, _ = run(False)
    assert not addresses(made) & addresses(reached)
    made.clear()
    reached.clear()
    for found in run(True):
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours, theirs)
    assert addresses(reached) <= addresses(made)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_in_bfloat16_it_is_as_exact_as_torch_under_autocast(norm):
    x, attended = random_rows(101, 64), random_rows(101, 64)
    weights, upstream = random_weights(64, 136, norm), torch.randn(101, 64, device=DEVICE)
    # Far from where ReLU bends: whether a feature is rounded to one side or the other would decide the comparison.
    with torch.no_grad():
        weights.bias1.copy_(8.0 * (-1.0) ** torch.arange(136))
    exact_x, exact_attended, exact_weights = in_float64(x, attended, weights)
    exact = plain(exact_x, exact_attended, exact_weights)
    expected = gradients(exact, [exact_x, exact_attended, *exact_weights], upstream)

    # Half precision, because the interpreter multiplies bfloat16 as if it were integers.
    inputs = [x, attended, *weights]
    low = torch.bfloat16 if DEVICE == "cuda" else torch.float16
    settings = BehindAttention(dropout=0.0, eps=1e-5, product=low, stream=torch.float32)
    out = behind_attention(x, attended.to(low), weights, settings)
    with torch.autocast(DEVICE, dtype=low):
        eager = plain(x, attended, weights)
    ours, theirs = (
        [
            relative_error(found, truth)
            for found, truth in zip(gradients(result, inputs, upstream), expected, strict=True)
        ]
        for result in (out, eager)
    )
    assert max(ours) < 2 * max(theirs)


def test_a_checkpointed_block_runs_it_once_in_forward_and_once_in_backward(monkeypatch):
    runs = []
    forward = _Halves.forward
    monkeypatch.setattr(_Halves, "forward", lambda *args: runs.append("forward") or forward(*args))
    weights, settings = random_weights(WIDTH, HIDDEN, "post"), EXACT(dropout=0.0, recompute=True)

    def block(x):
        return behind_attention(x, x.sin(), weights, settings)

    x = random_rows(ROWS, WIDTH)
    expected = gradients(block(x), [x], torch.ones(ROWS, WIDTH, device=DEVICE))[0]
    runs.clear()
    out = checkpoint(block, x, use_reentrant=False)
    assert isinstance(out, torch.Tensor)
    assert runs == ["forward"]
    torch.testing.assert_close(gradients(out, [x], torch.ones_like(out))[0], expected)
    assert runs == ["forward"] * 2


@pytest.mark.parametrize("way", ["kept", "by tiles"])
def test_frozen_weights_take_no_products_and_leave_the_other_gradients_as_they_are(way):
    x, attended, weights = random_rows(ROWS, WIDTH), random_rows(ROWS, WIDTH), random_weights(WIDTH, HIDDEN, "post")
    upstream = torch.randn(ROWS, WIDTH, device=DEVICE)

    def step() -> tuple[int, list[torch.Tensor]]:
        out = behind_attention(x, attended, weights, EXACT(dropout=0.0, **WAYS[way]))
        with FlopCounterMode(display=False) as counter:
            found = gradients(out, [x, attended], upstream)
        return counter.get_total_flops(), found

    all_products, expected = step()
    for weight in (weights.out_weight, weights.weight1, weights.weight2):
        assert weight is not None
        weight.requires_grad_(False)
    products, found = step()
    assert products < all_products
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_nothing_is_kept_for_evaluation():
    x, attended = random_rows(ROWS, WIDTH), random_rows(ROWS, WIDTH)
    weights = random_weights(WIDTH, HIDDEN, "post")
    with torch.no_grad():
        out = behind_attention(x, attended, weights, EXACT(dropout=0.0, recompute=True, tile=8))
    assert not out.requires_grad
    torch.testing.assert_close(out, plain(x, attended, weights), rtol=1e-4, atol=1e-5)
