"""Every rule says the same as its lists of keys, its tiles, and the layouts that are derived from them."""

from collections.abc import Callable

import pytest
import torch

from sparse_attention.layouts.block_sparse import BLOCK_SIZES
from sparse_attention.rules import (
    Blocks,
    Columns,
    Documents,
    EachHead,
    Everything,
    Listed,
    Rows,
    Rule,
    Steps,
    Stretches,
)
from sparse_attention.rules.to_block_sparse import to_block_sparse
from sparse_attention.rules.to_index_list import to_index_list

LENGTHS = (1, 17, 147)


def listed(n: int) -> Listed:
    return Listed(torch.randint(-1, n, (n, 4), generator=torch.Generator().manual_seed(n)))


def blocks(n: int, size: int = 16) -> Blocks:
    pairs = (-(-n // size)) ** 2
    return Blocks.whole(size, n, torch.randint(pairs, (pairs // 3 + 1,), generator=torch.Generator().manual_seed(n)))


def window_and_global(n: int) -> Rule:
    return Columns((0,)) | Steps((range(-2, 3),)) | Rows((0,))


def documents(n: int, within: Callable[[int], Rule], lengths: list[int]) -> Documents:
    """Documents of the given lengths, again and again, cut off at n."""
    taken = []
    while sum(taken) < n:
        taken.append(min(lengths[len(taken) % len(lengths)], n - sum(taken)))
    rules: dict[Rule, int] = {}
    which = [rules.setdefault(within(length), len(rules)) for length in taken]
    lengths_d = torch.tensor(taken)
    return Documents(lengths_d.cumsum(0) - lengths_d, lengths_d, tuple(rules), torch.tensor(which))


RULES: dict[str, Callable[[int], Rule]] = {
    "window": lambda n: Steps((range(-3, 4),)),
    "two dilations": lambda n: Steps((range(-12, 13, 4), range(-2, 3))),
    "no step": lambda n: Steps((range(0),)),
    "far strides": lambda n: Steps((range(-(n // 5) * 5, 1, 5),)),
    "columns": lambda n: Columns(tuple(sorted({0, n // 2}))),
    "columns past the end": lambda n: Columns((0, n, n + 3)),
    "rows": lambda n: Rows(tuple(sorted({0, n - 1}))),
    "window and global": window_and_global,
    "stretches": lambda n: Stretches(7, 7),
    "ends of near stretches": lambda n: Stretches(10, 2, -2, 2),
    "ends of all stretches": lambda n: Stretches(10, 10) | Stretches(10, 3, -n, n),
    "ends of stretches before": lambda n: (Stretches(24, 24) | Stretches(24, 1, -n, 0)) & Everything(causal=True),
    "listed": listed,
    "causal": lambda n: Everything(causal=True),
    "everything": lambda n: Everything(),
    "blocks": blocks,
    "rows and a window": lambda n: Rows((0,)) & Steps((range(-3, 4),)),
    "listed and a window": lambda n: Columns((0,)) | Steps((range(-1, 2),)) | listed(n),
    "blocks and a column": lambda n: blocks(n) | Columns((n // 2,)),
    "listed without a window": lambda n: listed(n) - window_and_global(n),
    "blocks without a window": lambda n: blocks(n) - Steps((range(-9, 10),)),
    "rows without blocks": lambda n: (Rows((0,)) | Steps((range(-20, 21),))) - blocks(n),
    "everything but a block": lambda n: Everything() - Blocks.whole(16, n, torch.tensor([0])),
    "documents that see themselves": lambda n: documents(n, lambda length: Everything(), [40, 3, 29]),
    "documents alike": lambda n: documents(n, lambda length: Steps((range(-2, 3),)), [9]),
    "documents of three blocks": lambda n: documents(n, lambda length: Steps((range(-2, 3),)), [48]),
    "documents with global tokens": lambda n: documents(n, window_and_global, [20, 1, 33]),
    "documents with drawn keys": lambda n: documents(n, listed, [20, 33]),
    "documents with blocks": lambda n: documents(n, blocks, [40, 70]),
    "documents and a window across them": lambda n: (
        documents(n, lambda length: Everything(), [11, 50]) | Steps((range(-1, 2),))
    ),
}


def mask_of(rule: Rule, n: int) -> torch.Tensor:
    position = torch.arange(n)
    return rule.allowed(position[:, None], position)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("n", LENGTHS)
def test_an_index_list_holds_what_a_rule_allows_each_pair_once(name: str, n: int) -> None:
    rule = RULES[name](n)
    layout = to_index_list(rule, n)
    allowed = mask_of(rule, n)
    assert torch.equal(layout.dense_mask(), allowed)
    assert layout.num_edges == int(allowed.sum())
    assert layout.num_slots <= max(1, rule.num_slots(n))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("size", BLOCK_SIZES)
def test_blocks_hold_what_a_rule_allows(name: str, size: int) -> None:
    for n in LENGTHS:
        rule = RULES[name](n)
        layout = to_block_sparse(rule, n, size)
        assert torch.equal(layout.dense_mask(), mask_of(rule, n)), n
        assert (rule.tiles(size, n).diff() > 0).all()


@pytest.mark.parametrize("name", RULES)
def test_tiles_of_a_kind_hold_the_same_pairs_wherever_they_begin(name: str) -> None:
    n, size = 100, 7
    rule, inside = RULES[name](n), torch.arange(size)
    query, key = torch.cartesian_prod(torch.arange(0, n - size, 3), torch.arange(0, n - size, 2)).T
    kinds = rule.kinds(query, key, size)
    tiles = rule.allowed((query[:, None] + inside)[:, :, None], (key[:, None] + inside)[:, None, :]).flatten(1)
    assert not tiles[kinds == -2].any()
    assert tiles[kinds == -1].all()
    for kind in kinds.unique().tolist():
        assert (tiles[kinds == kind] == tiles[kinds == kind][0]).all()


def test_bands_and_borders_need_few_evaluations() -> None:
    for rule, most in ((RULES["two dilations"](0), 5), (Stretches(48, 4, -2, 2), 60)):
        row = torch.arange(1000) * 16
        tiles = [rule.kinds(row, row + step * 16, 16) for step in (-2, -1, 0, 1, 2)]
        assert torch.cat(tiles).unique().numel() <= most


def test_equal_masks_are_stored_once() -> None:
    layout = to_block_sparse(Steps((range(-3, 4),)), 16 * 100, 16)
    # One on the diagonal and one on each side of it.
    assert layout.mask_words.shape[0] == 3
    assert layout.num_entries == 100 + 2 * 99


def test_rows_that_are_not_in_order_are_sorted_and_padded_behind() -> None:
    layout = to_index_list(Listed(torch.tensor([[2, -1, 0, 2], [-1, -1, -1, -1], [0, 1, 2, -1]])), 3)
    assert layout.indices.tolist() == [[0, 2, -1], [-1, -1, -1], [0, 1, 2]]


def test_heads_with_rules_of_their_own_lie_side_by_side() -> None:
    n, window = 70, Steps((range(-1, 2),))
    rule = EachHead((window, listed(n))) | Columns((5,))
    allowed = mask_of(rule, n)
    assert allowed.shape == (2, n, n)
    assert torch.equal(to_index_list(rule, n).dense_mask(), allowed)
    assert torch.equal(to_block_sparse(rule, n, 32).dense_mask(), allowed)


def test_full_rows_that_differ_from_head_to_head_are_for_blocks_only() -> None:
    rule = EachHead((Rows((0,)), Rows((1,))))
    with pytest.raises(ValueError, match=r"layout=index_list: .*differ from head to head.*layout=block_sparse"):
        to_index_list(rule, 9)
    assert torch.equal(to_block_sparse(rule, 9, 16).dense_mask(), mask_of(rule, 9))


def test_rules_with_different_numbers_of_heads_cannot_be_joined() -> None:
    one, two = EachHead((Rows((0,)),)), EachHead((Rows((0,)), Rows((1,))))
    with pytest.raises(ValueError, match="num_heads: expected the same in every pattern"):
        _ = one | two
