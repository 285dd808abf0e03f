"""From a rule to the layout that costs least, or to the one that is asked for."""

from __future__ import annotations

from typing import get_args

import torch

from ..layouts import BlockSparse, Dense, HubsApart, InParts, Layout
from ..layouts.block_sparse import BLOCK_SIZES
from .cost import Choice, Costs
from .parts import Parts, take_apart, union_of
from .rule import Rule
from .steps import Everything
from .to_block_sparse import to_block_sparse
from .to_index_list import to_index_list

CHOICES: tuple[Choice, ...] = get_args(Choice)


def lay_out(rule: Rule, num_tokens: int, *, layout: Choice = "auto", block_size: int = 64) -> Layout:
    """The layout that stands for `rule` over `num_tokens` tokens, with the rule on it.

    layout: how it is stored:
        index_list: key by key.
        block_sparse: in blocks.
        hubs_apart: in blocks, and beside them the tokens that all see or that see all.
        in_parts: of a union, what is cheaper as a list by itself, and all the rest in blocks, with hubs apart where
            that is cheaper too.
        auto: as is estimated to cost less time. On a GPU a block pays as soon as one in 48 of its pairs is allowed, on
            a CPU if one in 4 is. Where the pattern will be used is not known yet: it is taken to be a GPU if the
            machine has one.

    Raises ValueError for an unknown layout or block size, and for hubs_apart and in_parts where there is nothing to
    take apart, or a pattern of its own for each head.
    """
    if layout not in CHOICES:
        raise ValueError(f"layout={layout!r}: expected one of {', '.join(CHOICES)}")
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"block_size={block_size}: expected one of {', '.join(map(str, BLOCK_SIZES))}")
    if isinstance(rule, Everything):
        built = Dense(num_tokens, causal=rule.causal)
    else:
        costs = Costs(num_tokens, block_size, "cuda" if torch.cuda.is_available() else "cpu")
        parts = take_apart(rule, num_tokens)
        chosen = costs.cheapest(parts) if layout == "auto" else layout
        if chosen == "index_list":
            built = to_index_list(rule, num_tokens)
        elif chosen == "block_sparse":
            built = to_block_sparse(rule, num_tokens, block_size)
        elif chosen == "hubs_apart":
            built = _hubs_apart(parts, costs)
        else:
            built = _in_parts(parts, costs)
    built.rule = rule
    return built


def _hubs_apart(parts: Parts, costs: Costs) -> HubsApart:
    if not parts.has_hubs:
        raise ValueError(
            "layout=hubs_apart: the pattern has no tokens that all see or that see all, or differs from head to head; "
            "use layout=auto"
        )
    rest = to_block_sparse(parts.rest, costs.num_tokens, costs.size)
    return HubsApart(rest, columns=parts.columns, rows=parts.rows)


def _in_parts(parts: Parts, costs: Costs) -> InParts:
    listed, beside = costs.split(parts)
    if not listed or not (beside.members or beside.has_hubs):
        raise ValueError(
            f"layout=in_parts: {'all' if listed else 'nothing'} of the pattern costs less as a list; use layout=auto"
        )
    blocks: BlockSparse | HubsApart
    if costs.are_worth_a_place_apart(beside):
        blocks = _hubs_apart(beside, costs)
    else:
        blocks = to_block_sparse(beside.rule, costs.num_tokens, costs.size)
    return InParts([blocks, to_index_list(union_of(listed) - beside.rule, costs.num_tokens)])
