"""The rule of a layout that no pattern made, read back from its lists."""

from __future__ import annotations

from functools import reduce
from operator import or_

from ..layouts import BlockSparse, Dense, HubsApart, IndexList, InParts, Layout, PerHead
from .blocks import Blocks
from .each_head import EachHead
from .global_tokens import Columns, Rows
from .listed import Listed
from .rule import Rule
from .steps import Everything


def rule_of(layout: Layout) -> Rule:
    """Raises ValueError for a layout whose keys are not its queries, or that chooses keys by their content."""
    if layout.num_keys != layout.num_tokens:
        raise ValueError(f"num_keys={layout.num_keys}: expected as many as queries, {layout.num_tokens}")
    if isinstance(layout, IndexList):
        return _rule_of_index_list(layout)
    if isinstance(layout, BlockSparse):
        if layout.num_heads is None:
            return Blocks.of(layout)
        return EachHead(tuple(Blocks.of(layout, head) for head in range(layout.num_heads)))
    if isinstance(layout, HubsApart):
        return Columns(layout.columns) | Blocks.of(layout.rest) | Rows(layout.rows)
    if isinstance(layout, InParts):
        return reduce(or_, (part.rule for part in layout.parts))
    if isinstance(layout, Dense):
        return Everything(layout.causal)
    if isinstance(layout, PerHead):
        rules = [part.rule for part in layout.layouts]
        return EachHead(
            tuple(rule.for_head(head) for rule, count in zip(rules, layout.heads, strict=True) for head in range(count))
        )
    raise ValueError(
        f"{type(layout).__name__} says only with q and k which keys a query sees; only per_head can combine it"
    )


def _rule_of_index_list(layout: IndexList) -> Rule:
    indices = layout.indices.cpu()
    rule = Listed(indices) if layout.num_heads is None else EachHead(tuple(Listed(table) for table in indices))
    return rule | Rows(tuple(sorted(layout.full_rows))) if layout.full_rows else rule
