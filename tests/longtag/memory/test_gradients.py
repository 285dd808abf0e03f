"""No lever changes what is computed: gradients are those of a model that keeps everything."""

import functools

import pytest
import torch

from longtag.loss import TokenLoss
from longtag.memory import Levers
from sparse_attention import patterns

from .conftest import DEVICE, assert_equal_to, cost_and_gradients, per_head_layouts, small_model

KEEPING_THE_ORDER_OF_DRAWS = {
    "blocks": Levers(checkpoint="blocks"),
    "two blocks": Levers(checkpoint="blocks", checkpoint_every=2),
    "selective": Levers(checkpoint="selective"),
    "heads": Levers(tile_heads=3),
    "one head": Levers(tile_heads=1),
    "more heads than there are": Levers(tile_heads=9),
    "residual": Levers(residual="bfloat16"),
    "blocks and heads": Levers(checkpoint="blocks", tile_heads=2),
}
DRAWING_TILE_BY_TILE = {
    "tokens": Levers(tile_tokens=10),
    "one token": Levers(tile_tokens=1),
    "more tokens than there are": Levers(tile_tokens=1000),
    "selective and tokens": Levers(checkpoint="selective", tile_tokens=16),
    "tokens and heads": Levers(tile_tokens=10, tile_heads=2),
    "blocks and tokens": Levers(checkpoint="blocks", tile_tokens=10),
    "all of lean": Levers(checkpoint="blocks", tile_tokens=10, tile_heads=3, residual="bfloat16"),
    "all of lean over two blocks": Levers(checkpoint="blocks", checkpoint_every=2, tile_tokens=10, tile_heads=3),
}
ALL = KEEPING_THE_ORDER_OF_DRAWS | DRAWING_TILE_BY_TILE


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("levers", ALL.values(), ids=ALL.keys())
def test_gradients_are_those_of_fast(levers, norm):
    expected = cost_and_gradients(small_model(norm=norm, dropout=0.0))
    assert_equal_to(expected, cost_and_gradients(small_model(levers, norm=norm, dropout=0.0)))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("levers", KEEPING_THE_ORDER_OF_DRAWS.values(), ids=KEEPING_THE_ORDER_OF_DRAWS.keys())
def test_gradients_with_dropout_are_those_of_fast(levers, norm):
    expected = cost_and_gradients(small_model(norm=norm))
    assert_equal_to(expected, cost_and_gradients(small_model(levers, norm=norm)))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("levers", DRAWING_TILE_BY_TILE.values(), ids=DRAWING_TILE_BY_TILE.keys())
def test_dropout_that_is_drawn_tile_by_tile_draws_the_same_again(levers, norm, request):
    found = cost_and_gradients(small_model(levers, norm=norm))
    request.getfixturevalue("keep_everything")
    expected = cost_and_gradients(small_model(levers, norm=norm))
    without_dropout = cost_and_gradients(small_model(levers, norm=norm, dropout=0.0))
    assert_equal_to(expected, found)
    assert (without_dropout["cost"] - found["cost"]).abs() > 1e-3


@pytest.mark.parametrize("position", ["none", "sinusoidal"])
@pytest.mark.parametrize("levers", [ALL["selective and tokens"], ALL["all of lean"]], ids=["selective", "lean"])
def test_other_positions_have_the_gradients_of_fast_too(levers, position):
    expected = cost_and_gradients(small_model(position=position, dropout=0.0))
    assert_equal_to(expected, cost_and_gradients(small_model(levers, position=position, dropout=0.0)))


@pytest.mark.parametrize("kind", ["index list", "block sparse", "per head"])
@pytest.mark.parametrize(
    "levers", [ALL["selective"], ALL["heads"], ALL["all of lean"]], ids=["selective", "heads", "lean"]
)
def test_patterns_of_their_own_per_head_reach_the_right_heads(levers, kind):
    def pattern(num_tokens):
        return per_head_layouts(num_tokens)[kind]

    options = {"num_layers": 2, "pattern": pattern, "dropout": 0.0}
    assert_equal_to(cost_and_gradients(small_model(**options)), cost_and_gradients(small_model(levers, **options)))


@pytest.mark.parametrize(
    "pattern",
    [
        patterns.dense,
        functools.partial(patterns.knn, num_nearest=3),
        functools.partial(patterns.window, window=3, layout="block_sparse"),
        functools.partial(patterns.longformer, window=2, num_global=2, layout="index_list"),
    ],
    ids=["dense", "by content", "block sparse", "with queries that see everything"],
)
@pytest.mark.parametrize("levers", [ALL["selective"], ALL["all of lean"]], ids=["selective", "lean"])
def test_every_kind_of_layout_can_be_recomputed(levers, pattern):
    options = {"num_layers": 2, "pattern": pattern, "dropout": 0.0}
    assert_equal_to(cost_and_gradients(small_model(**options)), cost_and_gradients(small_model(levers, **options)))


@pytest.mark.parametrize("levers", [ALL["selective"], ALL["all of lean"]], ids=["selective", "lean"])
def test_the_operator_over_a_fused_projection_can_be_recomputed(levers, monkeypatch):
    from sparse_attention.ops import fused_index_list_attention

    def attend(qkv, layout, implementation):
        return fused_index_list_attention(qkv, layout, qkv.shape[-1] ** -0.5)[0]

    monkeypatch.setattr("longtag.model.attention.sparse_self_attention", attend)
    options = {"num_layers": 2, "num_heads": 2, "dropout": 0.0}
    expected, found = (
        cost_and_gradients(small_model(lever, **options).to(DEVICE), num_tokens=12) for lever in (None, levers)
    )
    assert_equal_to(expected, found)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_autocast_gives_the_gradients_of_float32_as_well_as_fast_does(norm):
    def gradient(levers=None):
        gradients = cost_and_gradients(small_model(levers, norm=norm, dropout=0.0), num_tokens=100)
        assert all(part.dtype == torch.float32 for part in gradients.values())
        return torch.cat([part.flatten() for part in gradients.values()])

    exact = gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        error_of_fast = (gradient() - exact).norm()
        for name in ("selective", "heads", "residual", "tokens", "tokens and heads", "all of lean"):
            levers = ALL[name]
            # The stream in bfloat16 and the sum over groups of heads are rounded more often.
            allowed = 1.5 if levers.tile_heads or levers.residual == "bfloat16" else 1.1
            assert (gradient(levers) - exact).norm() <= allowed * error_of_fast, name


@pytest.mark.parametrize("levers", [ALL["tokens"], ALL["heads"], ALL["all of lean"]], ids=["tokens", "heads", "lean"])
def test_each_parameter_gets_its_gradient_once(levers):
    model = small_model(levers)
    arrivals = []
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: arrivals.append(name))
    cost = model.head(model.encode(torch.randint(5, (1, 40)))).square().mean()
    cost.backward()
    assert sorted(arrivals) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    "options", [{"focal_gamma": 2.0}, {"label_smoothing": 0.1}, {"class_weights": [1, 2, 3, 4, 0, 6, 7]}]
)
def test_every_loss_can_be_taken_by_tiles(options):
    loss = TokenLoss(**options)
    expected = cost_and_gradients(small_model(dropout=0.0), loss)
    assert_equal_to(expected, cost_and_gradients(small_model(ALL["tokens"], dropout=0.0), loss))


@pytest.mark.parametrize("levers", [ALL["selective and tokens"], ALL["all of lean"]], ids=["selective", "lean"])
def test_evaluation_gives_the_logits_of_fast(levers):
    ids = torch.randint(5, (2, 41))
    with torch.no_grad():
        torch.testing.assert_close(small_model(levers).eval()(ids), small_model().eval()(ids), rtol=1e-4, atol=1e-5)
