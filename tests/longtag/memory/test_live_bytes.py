"""What levers save: bytes of tensors alive over one training step, counted as they come and go."""

import functools

import pytest
import torch

from longtag.data.source import TokenIds
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.tiled_loss import cost_of_tokens, predict
from longtag.model import TokenClassifier
from longtag.model.attention import SparseSelfAttention
from longtag.model.rotary import rotation
from sparse_attention import patterns

NUM_TOKENS, WIDTH, D_FF, HEADS = 512, 64, 256, 8
TENSOR = NUM_TOKENS * WIDTH * 4
"""Bytes of one float32 tensor of the model's width."""


def model(levers: Levers, **options) -> TokenClassifier:
    torch.manual_seed(0)
    defaults = {"num_classes": 5, "num_layers": 3, "dropout": 0.1, "norm": "post", "position": "rotary"}
    return TokenClassifier(
        inputs=TokenIds(5),
        # One key a query: what the reference takes for itself stays small.
        pattern=functools.partial(patterns.window, window=0, layout="index_list"),
        num_heads=HEADS,
        d_model=WIDTH,
        d_ff=D_FF,
        levers=levers,
        **(defaults | options),
    )


def tensors_alive(levers: Levers, *, autocast: bool = False, **options) -> tuple[float, float]:
    """Kept by forward for backward, and the peak of the step, in tensors of the model's width."""
    net = model(levers, **options)
    ids = torch.randint(5, (1, NUM_TOKENS))
    _ = net.layouts.get(NUM_TOKENS, ids.device).degrees
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), LiveBytes() as live:
        cost = cost_of_tokens(net.head, TokenLoss(), net.encode(ids), ids, tile=levers.tile_tokens)
        kept = live.now
        cost.backward()
    return kept / TENSOR, live.peak / TENSOR


BLOCKS = functools.partial(Levers, checkpoint="blocks")


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("with_lever", "without", "kept_at_most", "peak_at_most"),
    [
        (BLOCKS(), Levers(), 0.1, 0.5),
        (Levers(checkpoint="selective"), Levers(), 0.2, 0.6),
        (Levers(tile_tokens=64), Levers(), 0.4, 0.4),
        (Levers(tile_heads=2), Levers(), 0.85, 0.85),
        (Levers(checkpoint="selective", tile_tokens=64), Levers(checkpoint="selective"), 1.0, 0.65),
        (BLOCKS(tile_tokens=64), BLOCKS(), 1.0, 0.6),
        (BLOCKS(tile_tokens=64, tile_heads=2), BLOCKS(tile_tokens=64), 1.02, 0.9),
    ],
    ids=["blocks", "selective", "tokens", "heads", "tokens on selective", "tokens on blocks", "heads on both"],
)
def test_a_lever_saves_so_much(with_lever, without, kept_at_most, peak_at_most, norm):
    (kept, peak), (kept_without, peak_without) = (tensors_alive(levers, norm=norm) for levers in (with_lever, without))
    assert kept <= kept_at_most * kept_without
    assert peak <= peak_at_most * peak_without


@pytest.mark.parametrize(
    ("levers", "autocast", "tensors_a_layer"),
    [
        (BLOCKS(), False, 1),
        (BLOCKS(checkpoint_every=2), False, 0.5),
        (Levers(checkpoint="selective"), False, 2),
        (Levers(checkpoint="selective"), True, 1.5),
        (Levers(checkpoint="selective", tile_tokens=64, residual="bfloat16"), True, 1),
        (BLOCKS(tile_tokens=64, tile_heads=2), True, 1),
        (BLOCKS(tile_tokens=64, tile_heads=2, residual="bfloat16"), True, 0.5),
    ],
    ids=[
        "blocks",
        "two blocks",
        "selective",
        "selective, mixed",
        "selective, narrow",
        "lean but for the residual",
        "lean",
    ],
)
def test_another_layer_costs_as_many_tensors_as_the_lever_keeps(levers, autocast, tensors_a_layer):
    two, four = (tensors_alive(levers, autocast=autocast, num_layers=layers) for layers in (2, 4))
    # Weights are small beside a tensor here, but their gradients are not nothing; they count at the peak.
    gradients = (4 * WIDTH**2 + 2 * WIDTH * D_FF) * 4 / TENSOR
    assert (four[0] - two[0]) / 2 == pytest.approx(tensors_a_layer, abs=0.2)
    assert (four[1] - two[1]) / 2 <= tensors_a_layer + gradients + 0.1


def test_the_residual_stream_in_bfloat16_halves_what_checkpointing_keeps():
    (wide, _), (narrow, _) = (
        tensors_alive(BLOCKS(residual=residual), autocast=True, num_layers=6) for residual in ("float32", "bfloat16")
    )
    assert narrow < 0.6 * wide


def test_logits_never_exist_for_all_tokens_in_training():
    classes = 400
    levers = Levers(checkpoint="selective", tile_tokens=32)
    _, peak = tensors_alive(levers, num_layers=1, num_classes=classes)
    _, at_once = tensors_alive(Levers(checkpoint="selective"), num_layers=1, num_classes=classes)
    logits = classes / WIDTH
    assert peak < at_once - logits
    net, features = model(levers, num_classes=classes), torch.randn(1, NUM_TOKENS, WIDTH, requires_grad=True)
    labels = torch.randint(classes, (1, NUM_TOKENS))
    with LiveBytes() as live:
        cost_of_tokens(net.head, TokenLoss(), features, labels, tile=32).backward()
    # Besides the gradients of the features and of the head.
    assert live.peak / TENSOR < 1 + 3 * classes * WIDTH * 4 / TENSOR + 0.5 * logits


def test_logits_never_exist_for_all_tokens_in_evaluation():
    classes = 400
    net, features = model(Levers(), num_classes=classes), torch.randn(2, NUM_TOKENS, WIDTH)
    labels = torch.randint(-1, classes, (2, NUM_TOKENS))
    labels[labels < 0] = -100
    loss = TokenLoss()
    with LiveBytes() as live:
        predictions = predict(net.head, loss, features, labels, tile=30)
    logits = net.head(features)
    assert torch.equal(predictions.classes, logits.argmax(-1))
    torch.testing.assert_close(predictions.confidences, logits.softmax(-1).amax(-1))
    torch.testing.assert_close(predictions.cost, loss.cost(logits, labels), rtol=1e-6, atol=0)
    assert live.peak < 0.2 * logits.nbytes


def test_the_gradient_of_q_k_and_v_is_turned_back_where_it_lies(monkeypatch):
    attention = SparseSelfAttention(d_model=WIDTH, num_heads=HEADS)
    layout = patterns.window(NUM_TOKENS, window=0, layout="index_list")
    turn = rotation(NUM_TOKENS, WIDTH // HEADS, torch.device("cpu"))
    x = torch.randn(1, NUM_TOKENS, WIDTH, requires_grad=True)
    upstream = torch.randn(1, NUM_TOKENS, WIDTH)

    import longtag.model.attention as module

    in_place, peaks = module.rotate_queries_and_keys, []
    for rotate in (in_place, lambda projected, shape, turn, owns_gradient: in_place(projected, shape, turn)):
        monkeypatch.setattr(module, "rotate_queries_and_keys", rotate)
        out = attention(x, layout, turn)
        with LiveBytes() as live:
            torch.autograd.grad(out, x, upstream)
        peaks.append(live.peak / TENSOR)
    assert peaks[1] - peaks[0] >= 1


def test_live_bytes_are_those_of_tensors_that_operators_made_and_nobody_let_go():
    before = torch.ones(1000)
    with LiveBytes() as live:
        x = torch.ones(100)
        y = x[10:] + 1
        assert (live.now, live.peak) == (760, 760)
        view = x.view(10, 10)
        del x
        assert live.now == 760
        del view
        z = before * 2
        z.add_(before)
        assert (live.now, live.peak) == (4360, 4360)
        del y, z
    assert (live.now, live.peak) == (0, 4360)
