import copy
import functools
import math
import pickle
import weakref

import pytest
import torch

from longtag.data.source import TokenIds, Vectors
from longtag.errors import UsageError
from longtag.memory import Levers
from longtag.model import TokenClassifier
from longtag.model.block import Block
from sparse_attention import IMPLEMENTATIONS, IndexList, Layout, patterns

window = functools.partial(patterns.window, window=2)


def small_model(**changes) -> TokenClassifier:
    options = {
        "inputs": TokenIds(5),
        "num_classes": 3,
        "pattern": window,
        "num_layers": 2,
        "num_heads": 2,
        "d_model": 32,
        "d_ff": 48,
        "dropout": 0.0,
    }
    return TokenClassifier(**(options | changes))


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("position", ["none", "sinusoidal", "rotary"])
def test_ids_of_any_length_become_unnormalised_logits(norm, position):
    model = small_model(norm=norm, position=position)
    for num_tokens in (1, 2, 17):
        logits = model(torch.randint(5, (3, num_tokens)))
        assert logits.shape == (3, num_tokens, 3)
        assert not torch.allclose(logits.exp().sum(-1), torch.ones(3, num_tokens))


@pytest.mark.parametrize("project_inputs", [False, True])
def test_vectors_become_logits(project_inputs):
    model = small_model(inputs=Vectors(32), project_inputs=project_inputs)
    assert model(torch.randn(2, 9, 32)).shape == (2, 9, 3)


def test_the_defaults_are_the_questions_block():
    model = TokenClassifier(inputs=TokenIds(4), num_classes=2, pattern=window)
    (block,) = model.encoder.blocks
    assert isinstance(block, Block)
    assert block.attention.num_heads == 1
    assert block.attention.qkv.weight.shape == (3 * 768, 768)
    assert block.feed_forward.linear1.weight.shape == (2048, 768)
    assert block.dropout.p == block.feed_forward.dropout.p == 0.1
    assert not block.norm_first


@pytest.mark.parametrize(("position", "notices"), [("none", False), ("sinusoidal", True), ("rotary", True)])
def test_only_models_with_positions_notice_the_order_of_the_keys(position, notices):
    torch.manual_seed(0)
    model = small_model(position=position, pattern=lambda n: IndexList(torch.arange(n).expand(n, n)))
    ids = torch.tensor([[0, 1, 2, 3, 4]])
    swapped = torch.tensor([[0, 4, 3, 2, 1]])
    assert torch.allclose(model(ids)[:, 0], model(swapped)[:, 0], atol=1e-6) is not notices


def test_all_layers_and_steps_share_one_layout_for_each_length():
    lengths = []

    def counted(num_tokens: int) -> Layout:
        lengths.append(num_tokens)
        return window(num_tokens)

    model = small_model(pattern=counted, num_layers=3)
    for num_tokens in (6, 9, 6):
        model(torch.randint(5, (1, num_tokens)))
    assert lengths == [6, 9]


def test_layouts_are_neither_in_the_state_dict_nor_in_copies():
    model = small_model()
    before = set(model.state_dict())
    logits = model(ids := torch.randint(5, (1, 8)))
    assert set(model.state_dict()) == before
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(ids), logits, rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("position", ["sinusoidal", "rotary"])
def test_autocast_to_bfloat16_stays_near_float32(norm, position):
    torch.manual_seed(0)
    model = small_model(norm=norm, position=position)
    ids = torch.randint(5, (2, 30))

    def logits_and_gradient():
        logits = model(ids)
        return logits, torch.autograd.grad(logits.float().square().sum(), list(model.encoder.parameters()))

    exact, exact_gradients = logits_and_gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, rounded_gradients = logits_and_gradient()
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    for found, expected in zip(rounded_gradients, exact_gradients, strict=True):
        assert (found - expected).norm() < 0.1 * expected.norm() + 0.01


def test_dropout_reaches_every_block():
    model = small_model(dropout=0.25)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.25}


@pytest.mark.parametrize(("norm", "depth"), [("post", 2), ("pre", 2), ("post", 8)])
def test_a_model_starts_near_the_loss_of_a_guess_and_learns_in_a_few_steps(norm, depth):
    torch.manual_seed(0)
    model = small_model(norm=norm, num_layers=depth, num_classes=5, position="rotary")
    ids = torch.randint(5, (1, 256))
    labels = (ids + ids.roll(1, 1)) % 5
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(ids)[0], labels[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < math.log(5) + 1
    assert losses[-1] < 0.5


def test_edges_are_those_of_one_layer_and_one_head():
    assert small_model(pattern=lambda n: patterns.random(n, keys_per_query=4)).num_edges(10) == 40
    of_each_head = IndexList(torch.zeros(2, 10, 3, dtype=torch.int32))
    assert small_model(pattern=lambda n: of_each_head).num_edges(10) == 30


def test_the_model_explains_which_implementation_attends_and_why():
    cpu = torch.device("cpu")
    model = small_model()
    assert model.explain(window(9), cpu)[0] == "reference"
    assert IMPLEMENTATIONS["reference"].summary in model.explain(window(9), cpu)[1]
    assert small_model(implementation="reference").explain(window(9), cpu) == ("reference", "reference (asked for)")
    with pytest.raises(UsageError, match=r"implementation='magic': expected one of auto, .*reference"):
        small_model(implementation="magic").explain(window(9), cpu)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "num_heads=5 does not divide d_model=32.* num_heads=4 or 8"),
        ({"num_heads": 0}, "num_heads=0: expected 1 or more"),
        ({"num_layers": 0}, "num_layers=0: expected 1 or more"),
        ({"d_model": -8}, "d_model=-8: expected 1 or more"),
        ({"d_ff": 0}, "d_ff=0: expected 1 or more"),
        ({"num_classes": 0}, "num_classes=0: expected 1 or more"),
        ({"dropout": -0.1}, "dropout=-0.1: expected a share from 0"),
        ({"dropout": 1.0}, "dropout=1.0: expected a share from 0"),
        ({"norm": "middle"}, "norm=middle: expected one of post, pre"),
        ({"position": "learned"}, "position=learned: expected one of none, sinusoidal, rotary"),
        ({"position": "rotary", "d_model": 18}, "position=rotary .*d_model=18 with num_heads=2 .*odd width 9"),
        ({"inputs": Vectors(16), "project_inputs": False}, "project_inputs=False: .*width 16.*d_model=32"),
    ],
)
def test_options_that_cannot_be_used_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        small_model(**changes)


def test_under_autocast_nobody_holds_the_embedding_in_float32():
    model, alive = small_model(levers=Levers(residual="bfloat16")), []
    model.embedding.register_forward_hook(lambda *call: alive.append(weakref.ref(call[-1].untyped_storage())))
    model.encoder.blocks[0].register_forward_pre_hook(lambda *call: alive.append(alive[0]() is not None))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randint(5, (1, 20)))
    assert alive[1:] == [False]
