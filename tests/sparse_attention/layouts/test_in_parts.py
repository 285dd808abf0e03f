"""InParts: the sum of what its parts tell, and what it refuses."""

import pytest
import torch

from sparse_attention import Dense, InParts, Layout, patterns
from sparse_attention.rules import lay_out
from tests.sparse_attention.block_layouts import block_layout, in_parts_layout


def test_it_stands_for_what_any_part_allows() -> None:
    layout = in_parts_layout(num_tokens=75)
    seen = torch.stack([part.dense_mask() for part in layout.parts])
    assert int(seen.sum(dim=0).max()) == 1
    assert torch.equal(layout.dense_mask(), seen.any(dim=0))
    assert torch.equal(layout.degrees, seen.sum(dim=(0, 1)))
    assert layout.num_edges == int(seen.sum())
    assert (layout.num_tokens, layout.num_keys, layout.num_heads) == (75, 75, None)


def test_made_by_hand_it_states_its_own_rule() -> None:
    layout = in_parts_layout(num_tokens=40)
    position = torch.arange(40)
    assert torch.equal(layout.rule.allowed(position[:, None], position), layout.dense_mask())
    assert torch.equal(lay_out(layout.rule, 40).dense_mask(), layout.dense_mask())


def test_moving_takes_all_parts_along_and_only_where_there_is_need() -> None:
    layout = in_parts_layout(num_tokens=40)
    _ = layout.rule
    layout.build()
    assert layout.to("cpu") is layout
    moved = layout.to("meta")
    assert moved.device == torch.device("meta")
    assert {part.device for part in moved.parts} == {torch.device("meta")}
    assert moved.rule is layout.rule


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([block_layout(num_tokens=20)], "parts: expected two or more, got 1"),
        ([block_layout(num_tokens=20), Dense(20)], "parts: expected lists or blocks that all heads share, got Dense"),
        ([block_layout(num_tokens=20), block_layout(num_tokens=20, heads=2)], "that all heads share, got BlockSparse"),
        (
            [block_layout(num_tokens=20), patterns.longformer(20, window=1, num_global=1, layout="index_list")],
            "no full rows in an index list, got IndexList.*HubsApart takes them",
        ),
        (
            [block_layout(num_tokens=20), block_layout(num_tokens=20, num_keys=30)],
            "expected 20 queries and 20 keys in all of them, got 20 and 30",
        ),
    ],
)
def test_what_it_refuses_is_named(parts: list[Layout], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InParts(parts)
