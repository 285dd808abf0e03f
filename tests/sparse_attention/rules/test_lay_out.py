"""The choice of a layout, and the rules of layouts that no pattern made."""

import pytest
import torch

from sparse_attention import BlockSparse, Dense, HubsApart, IndexList, InParts, Layout, Nearest, PerHead, patterns
from sparse_attention.rules import Columns, EachHead, Everything, Listed, Rows, Rule, Steps, lay_out
from tests.sparse_attention.block_layouts import hubs_layout

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


def test_hubs_go_apart_where_they_are_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    n = 20_000
    scattered, side_by_side = tuple(range(50, n, 300)), tuple(range(64))
    near = Steps((range(-64, 65),))
    apart = lay_out(near | Columns(scattered) | Rows(scattered), n)
    assert isinstance(apart, HubsApart)
    assert (apart.columns, apart.rows) == (scattered, scattered)
    assert isinstance(lay_out(Rows(scattered) | near, n), HubsApart)
    # At home they fill a block already; and one alone is not worth a copy of the sequence.
    assert isinstance(lay_out(near | Columns(side_by_side) | Rows(side_by_side), n), BlockSparse)
    assert isinstance(lay_out(near | Columns((77,)), n), BlockSparse)
    # More keys than a list takes; and few edges by themselves.
    assert isinstance(lay_out(Columns(tuple(range(0, n, 4))) | near, n), HubsApart)
    assert isinstance(lay_out(Columns((5, 700)) | Steps((range(1),)), n), IndexList)


def test_what_is_cheaper_as_a_list_goes_beside_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    n = 20_000
    near, drawn_keys, scattered = Steps((range(-64, 65),)), Listed(torch.randint(n, (n, 8))), tuple(range(50, n, 300))
    layout = lay_out(near | drawn_keys, n)
    assert isinstance(layout, InParts)
    assert [type(part) for part in layout.parts] == [BlockSparse, IndexList]
    layout = lay_out(drawn_keys | Columns(scattered) | near | Rows(scattered), n)
    assert isinstance(layout, InParts)
    assert [type(part) for part in layout.parts] == [HubsApart, IndexList]
    # One hub stays at home, and a list that is short in any case stays whole.
    layout = lay_out(near | drawn_keys | Columns((77,)), n)
    assert isinstance(layout, InParts)
    assert [type(part) for part in layout.parts] == [BlockSparse, IndexList]
    assert isinstance(lay_out(Steps((range(-1, 2),)) | drawn_keys, n), IndexList)
    assert isinstance(lay_out(EachHead((near, near)) | drawn_keys, n), BlockSparse | IndexList)


def test_parts_share_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    n = 600
    listed = Listed(torch.randint(n, (n, 2), generator=torch.Generator().manual_seed(1)))
    rule = Steps((range(-20, 21),)) | listed | Columns((5, 90)) | Rows((0, 5))
    layout = lay_out(rule, n, layout="in_parts")
    assert isinstance(layout, InParts)
    position = torch.arange(n)
    allowed = rule.allowed(position[:, None], position)
    assert torch.equal(layout.dense_mask(), allowed)
    assert layout.num_edges == int(allowed.sum())
    assert torch.equal(layout.degrees, allowed.sum(dim=0))


@pytest.mark.parametrize(
    ("rule", "how_much"),
    [
        (Listed(torch.arange(200)[:, None]), "all"),
        (Steps((range(-64, 65),)) | Columns((3,)), "nothing"),
        (EachHead((Steps((range(3),)), Steps((range(2),)))), "nothing"),
    ],
)
def test_a_pattern_that_does_not_fall_apart_says_so(rule: Rule, how_much: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ValueError, match=f"layout=in_parts: {how_much} of the pattern costs less as a list"):
        lay_out(rule, 200, layout="in_parts")


def test_several_patterns_put_their_hubs_together() -> None:
    n = 200
    rule = (Columns((5, 9)) | Rows((150, 250))) | (Steps((range(-2, 3),)) | Columns((9, 180)))
    layout = lay_out(rule, n, layout="hubs_apart", block_size=16)
    assert isinstance(layout, HubsApart)
    assert (layout.columns, layout.rows) == ((5, 9, 180), (150,))
    position = torch.arange(n)
    assert torch.equal(layout.dense_mask(), rule.allowed(position[:, None], position))


@pytest.mark.parametrize(
    "rule",
    [
        Steps((range(3),)),
        Columns((5,)) & Steps((range(-9, 9),)),
        EachHead((Columns((5,)), Columns((6,)))),
        Columns((500,)),
    ],
)
def test_without_hubs_that_all_heads_share_there_is_nothing_to_put_apart(rule: Rule) -> None:
    with pytest.raises(ValueError, match="layout=hubs_apart: the pattern has no tokens that all see or that see all"):
        lay_out(rule, 100, layout="hubs_apart")


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
        ({"layout": "dense"}, "layout='dense': expected one of auto, index_list, block_sparse, hubs_apart, in_parts"),
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
        hubs_layout("other keys than queries", num_tokens=50),
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
