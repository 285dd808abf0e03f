"""The choice of a layout, and the rules of layouts that no pattern made."""

import pytest
import torch

from sparse_attention import BlockSparse, Dense, IndexList, Layout, Nearest, PerHead, patterns
from sparse_attention.rules import Columns, Everything, Listed, Rows, Steps, lay_out

from ..layouts.test_block_sparse import drawn


@pytest.mark.parametrize(("on_gpu", "kind"), [(True, BlockSparse), (False, IndexList)])
def test_blocks_are_taken_where_enough_of_their_pairs_are_allowed(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, kind: type
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: on_gpu)
    n = 2000
    assert isinstance(lay_out(Steps((range(-16, 17),)), n), kind)
    assert isinstance(lay_out(Steps((range(-96, 97),)), n), BlockSparse)
    assert isinstance(lay_out(Steps((range(-5000, 5001, 1000),)), n), IndexList)
    assert isinstance(lay_out(Listed(torch.randint(n, (n, 8))), n), IndexList)


def test_lists_too_long_for_a_gpu_become_blocks() -> None:
    n = 4100
    assert isinstance(lay_out(Steps((range(-n + 1, n, 2),)), n), BlockSparse)


def test_queries_that_see_all_do_not_decide() -> None:
    rule = Rows((0,)) | Listed(torch.randint(2000, (2000, 4)))
    layout = lay_out(rule, 2000)
    assert isinstance(layout, IndexList)
    assert layout.full_rows == (0,)


def test_what_is_asked_for_is_built() -> None:
    rule = Columns((3,))
    assert isinstance(lay_out(rule, 100, layout="index_list"), IndexList)
    layout = lay_out(rule, 100, layout="block_sparse", block_size=16)
    assert isinstance(layout, BlockSparse)
    assert layout.block_size == 16
    assert isinstance(lay_out(Everything(causal=True), 100), Dense)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "dense"}, "layout='dense': expected one of auto, index_list, block_sparse"),
        ({"block_size": 48}, "block_size=48: expected one of 16, 32, 64, 128"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patterns.window(9, window=1, **options)


@pytest.mark.parametrize(
    "layout",
    [
        IndexList(torch.tensor([[1, 1, -1], [-1, -1, -1], [0, 2, 1]])),
        IndexList(torch.tensor([[[1, -1], [0, 2], [-1, -1]]] * 2), full_rows=[2]),
        drawn(70, 70, 16, None, seed=0)[0],
        drawn(70, 70, 32, 2, seed=1)[0],
        Dense(5),
        Dense(5, causal=True),
        PerHead([Dense(5), IndexList(torch.zeros(5, 1, dtype=torch.int64))], [2, 1]),
    ],
    ids=repr,
)
def test_a_layout_made_by_hand_states_its_own_rule(layout: Layout) -> None:
    position = torch.arange(layout.num_tokens)
    allowed = layout.rule.allowed(position[:, None], position)
    assert torch.equal(allowed.expand_as(layout.dense_mask()), layout.dense_mask())


def test_a_rule_moves_along_with_its_layout() -> None:
    for name in ("index_list", "block_sparse"):
        layout = patterns.window(50, window=3, layout=name)
        assert layout.to("meta").rule is layout.rule


def test_a_layout_without_a_rule_says_why() -> None:
    with pytest.raises(ValueError, match="num_keys=7: expected as many as queries, 5"):
        _ = Dense(5, 7).rule
    with pytest.raises(ValueError, match=r"Nearest says only with q and k .*only per_head"):
        _ = Nearest(9, num_nearest=2).rule
