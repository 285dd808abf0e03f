"""Patterns made of patterns: union, documents and per_head."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from sparse_attention import BlockSparse, Dense, IndexList, Layout, PerHead, patterns

window = partial(patterns.window, window=2)
random = partial(patterns.random, keys_per_query=3)
hubs = partial(patterns.hubs, num_hubs=2, window=0)
knn = partial(patterns.knn, num_nearest=2)


def test_a_union_holds_what_any_of_its_patterns_does_each_pair_once() -> None:
    parts = (window, random, hubs)
    mask = torch.stack([part(50).dense_mask() for part in parts]).any(dim=0)
    for given in (parts, {"near": window, "far": random, "everywhere": hubs}):
        for layout in ("auto", "index_list", "block_sparse"):
            built = patterns.union(50, patterns=given, layout=layout)
            assert torch.equal(built.dense_mask(), mask)
            assert built.num_edges == int(mask.sum())


def test_a_union_takes_tables_and_patterns_per_head() -> None:
    table = IndexList(torch.randint(50, (2, 50, 3)))
    built = patterns.union(50, patterns=[lambda n: table, window])
    assert torch.equal(built.dense_mask(), table.dense_mask() | window(50).dense_mask())


def test_documents_see_nothing_of_each_other() -> None:
    mask = patterns.documents(20, lengths=[3, 9, 8]).dense_mask()
    assert torch.equal(mask, torch.block_diag(*(torch.ones(n, n) for n in (3, 9, 8))).bool())


def test_one_length_holds_for_all_documents_but_the_last() -> None:
    mask = patterns.documents(20, lengths=8).dense_mask()
    assert torch.equal(mask, torch.block_diag(*(torch.ones(n, n) for n in (8, 8, 4))).bool())


@pytest.mark.parametrize(
    "within",
    [
        window,
        random,
        hubs,
        partial(patterns.longformer, window=1, num_global=1),
        partial(patterns.bigbird, block_size=16),
        partial(patterns.dense, causal=True),
        partial(patterns.union, patterns=[window, hubs]),
        partial(patterns.documents, lengths=6),
        partial(patterns.per_head, patterns=[random, random], heads=[1, 1]),
    ],
    ids=["window", "random", "hubs", "longformer", "bigbird", "causal", "union", "documents", "per_head"],
)
def test_any_pattern_holds_inside_of_a_document_as_if_it_were_the_sequence(within: Callable[[int], Layout]) -> None:
    lengths = [30, 70, 2, 30]
    masks = [within(length).dense_mask() for length in lengths]
    heads = [torch.block_diag(*(mask if mask.dim() == 2 else mask[head] for mask in masks)) for head in (0, 1)]
    for layout in ("auto", "block_sparse"):
        built = patterns.documents(132, lengths=lengths, within=within, layout=layout)
        expected = torch.stack(heads) if built.num_heads else heads[0]
        assert torch.equal(built.dense_mask(), expected.bool())


def masks_of_heads(*layouts: Layout) -> torch.Tensor:
    return torch.stack([layout.dense_mask() for layout in layouts])


def test_index_lists_of_groups_of_heads_become_one() -> None:
    built = patterns.per_head(40, patterns=[partial(window, layout="index_list"), random], heads=[2, 1])
    assert isinstance(built, IndexList)
    assert torch.equal(built.dense_mask(), masks_of_heads(window(40), window(40), random(40)))


def test_blocks_of_groups_of_heads_become_one() -> None:
    big = partial(patterns.bigbird, block_size=16, num_heads=2)
    near = partial(window, layout="block_sparse", block_size=16)
    built = patterns.per_head(90, patterns={"near": near, "big": big, "local": near}, heads=[2, 2, 1])
    assert isinstance(built, BlockSparse)
    expected = torch.cat((masks_of_heads(*[near(90)] * 2), big(90).dense_mask(), masks_of_heads(near(90))))
    assert torch.equal(built.dense_mask(), expected)
    assert built.num_edges == int(expected.sum())


@pytest.mark.parametrize(
    "parts",
    [
        [random, partial(window, layout="block_sparse")],
        [random, patterns.dense],
        [random, knn],
        [random, partial(patterns.random, keys_per_query=30)],
        [random, partial(hubs, layout="index_list")],
    ],
    ids=["blocks", "dense", "nearest", "other width", "full rows"],
)
def test_groups_that_are_stored_differently_stay_apart(parts: list[Callable[[int], Layout]]) -> None:
    built = patterns.per_head(40, patterns=parts, heads=[1, 1])
    assert isinstance(built, PerHead)
    assert [type(layout) for layout in built.layouts] == [type(part(40)) for part in parts]


def test_the_rule_of_groups_of_heads_can_be_composed_further() -> None:
    groups = partial(patterns.per_head, patterns=[random, patterns.dense], heads=[2, 1])
    built = patterns.union(40, patterns=[groups, window])
    expected = masks_of_heads(random(40), random(40), Dense(40)) | window(40).dense_mask()
    assert torch.equal(built.dense_mask(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patterns.union(9, patterns=[]), r"patterns=\[\]: expected one or more patterns"),
        (
            lambda: patterns.union(9, patterns={"near": partial(patterns.window, window=-1)}),
            "patterns.near.window=-1: expected",
        ),
        (lambda: patterns.union(9, patterns=[window, knn]), "patterns.1: Nearest says only with q and k"),
        (lambda: patterns.documents(9, lengths=[4, 4]), r"lengths=\[4, 4\]: they add up to 8, expected num_tokens=9"),
        (lambda: patterns.documents(9, lengths=[9, 0]), "lengths=0: expected a whole number, 1 or more"),
        (lambda: patterns.documents(9, lengths=0), "lengths=0: expected a whole number, 1 or more"),
        (
            lambda: patterns.documents(9, lengths=3, within=partial(patterns.window, window=-1)),
            "within.window=-1: expected",
        ),
        (lambda: patterns.documents(9, lengths=3, within=knn), "within: Nearest says only with q and k"),
        (lambda: patterns.per_head(9, patterns=[window], heads=[1, 1]), r"heads=\[1, 1\]: expected 1 numbers"),
        (lambda: patterns.per_head(9, patterns=[window], heads=[0]), "heads=0: expected a whole number, 1 or more"),
        (
            lambda: patterns.per_head(9, patterns=[partial(patterns.bigbird, num_heads=2)], heads=[3]),
            r"heads=\[3\]: a layout has lists for 2 heads, not 3",
        ),
        (
            lambda: patterns.per_head(9, patterns=[partial(patterns.window, window=-1)], heads=[3]),
            "patterns.0.window=-1: expected",
        ),
    ],
)
def test_an_option_that_cannot_be_used_is_named(call: Callable[[], Layout], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_documents_beside_a_pattern_in_which_every_query_sees_everything() -> None:
    parts = [partial(patterns.documents, lengths=10), patterns.bigbird]
    listed = patterns.union(100, patterns=parts, layout="index_list")
    assert listed.num_edges == 100 * 100
