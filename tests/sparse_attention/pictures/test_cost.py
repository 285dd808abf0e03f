"""The table says what the layout itself says, and what it costs beside dense attention."""

import pytest
import torch

from sparse_attention import Dense, IndexList, Layout, patterns
from sparse_attention.layouts import PerHead
from sparse_attention.pictures.cost import Spread, cost_table, flops, in_bytes, percent, storage, times
from sparse_attention.pictures.heads import head_groups
from tests.sparse_attention.block_layouts import block_layout, hubs_layout, in_parts_layout


def table_of(layout: Layout) -> dict[str, tuple[str, str, str]]:
    return {name: figures for name, *figures in cost_table(layout, Spread.of(head_groups(layout)))}  # pyright: ignore[reportReturnType]


def layouts() -> list[Layout]:
    table = torch.randint(-1, 50, (3, 50, 4), generator=torch.Generator().manual_seed(1))
    return [
        IndexList(table),
        patterns.longformer(50, window=2, num_global=1, layout="index_list"),
        block_layout(num_tokens=131, num_keys=77, heads=3, seed=2),
        block_layout(num_tokens=90, seed=3),
        hubs_layout("other keys than queries", num_tokens=90),
        in_parts_layout(num_tokens=60),
        Dense(40, 30),
        PerHead([Dense(40), block_layout(num_tokens=40, heads=2, seed=5)], heads=[3, 2]),
        Dense(40, causal=True),
    ]


@pytest.mark.parametrize("layout", layouts(), ids=repr)
def test_figures_are_those_of_the_layout(layout: Layout) -> None:
    spread = Spread.of(head_groups(layout))
    assert spread.num_edges == layout.num_edges
    assert torch.equal(spread.degrees, layout.degrees.flatten().long())
    heads = layout.num_heads or 1
    assert spread.keys.shape == (heads * layout.num_tokens,)
    assert float(spread.keys.double().mean()) == pytest.approx(layout.keys_per_query)
    table = table_of(layout)
    edges = next(figures for name, figures in table.items() if name.startswith("edges"))
    assert edges[:2] == [f"{layout.num_edges:,}", f"{heads * layout.num_tokens * layout.num_keys:,}"]
    assert table["greatest degree of a key"][0] == f"{layout.max_degree:,}"


def test_the_questions_pattern_beside_dense_attention() -> None:
    table = table_of(patterns.random(100_000, keys_per_query=8))
    assert table["edges"] == ["800,000", "10,000,000,000", "12,500"]
    assert table["density"][0] == "0.008 %"
    assert table["keys a query, range"][0] == "8"
    assert table["layout"][0] == "index list"
    assert table["  memory"][0] == "3.05 MiB"
    assert table["FLOPs forward / head_dim"] == ["3.2 M", "40 G", "12,500"]
    assert table["FLOPs backward / head_dim"] == ["6.4 M", "80 G", "12,500"]


@pytest.mark.parametrize("heads", [None, 3])
def test_memory_is_that_of_the_tensors_which_are_kept(heads: int | None) -> None:
    listed = IndexList(torch.zeros(*([heads] if heads else []), 301, 5, dtype=torch.int32))
    blocks = block_layout(num_tokens=200, heads=heads, seed=4)
    kept = storage(listed)
    transposed = listed.transposed
    assert kept.forward == listed.indices.nbytes
    assert kept.backward == sum(x.nbytes for x in (transposed.offsets, transposed.edges, transposed.order))
    kept = storage(blocks)
    fields = ("offsets", "partial", "blocks", "masks")
    assert kept.forward == sum(getattr(blocks.lists, name).nbytes for name in fields) + blocks.mask_words.nbytes
    assert kept.backward == sum(getattr(blocks.transposed, name).nbytes for name in fields)


def test_a_pattern_without_edges_divides_by_nothing() -> None:
    table = table_of(IndexList(torch.full((6, 2), -1)))
    assert table["edges"] == ["0", "36", "-"]
    assert table["keys that no query sees"][0] == "6"
    assert table["  share of it in use"][0] == "0 %"
    assert table_of(block_layout("no block", num_tokens=40))["  share of it in use"][0] == "-"


def test_figures_are_short_and_carry_their_unit() -> None:
    assert [in_bytes(count) for count in (0, 1023, 1024, 3 * 2**20, 1000 * 2**20, 5 * 2**30)] == [
        "0 B", "1023 B", "1 KiB", "3 MiB", "1,000 MiB", "5 GiB",
    ]  # fmt: skip
    assert [flops(count) for count in (7, 3200, 4 * 10**10, 25 * 10**14)] == ["7", "3.2 k", "40 G", "2.5 P"]
    assert [percent(share) for share in (0, 8e-5, 0.5, 1, 2)] == ["0 %", "0.008 %", "50 %", "100 %", "200 %"]
    assert [times(6, 4), times(12_500, 1), times(1, 0)] == ["1.5", "12,500", "-"]
