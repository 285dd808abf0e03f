"""PerHead: each group of heads as if it were alone."""

import pytest
import torch

from sparse_attention import (
    Dense,
    IndexList,
    Layout,
    Nearest,
    PerHead,
    choose,
    explain,
    sparse_attention,
    sparse_self_attention,
    why_not,
)
from sparse_attention.testing import assert_as_exact_as_eager, awkward_layout, random_inputs, run

N = 37


def groups() -> PerHead:
    own = awkward_layout("scattered empty slots", num_tokens=N, num_slots=3, heads=2)
    shared = awkward_layout("a hub", num_tokens=N, num_slots=4, full_rows=(3,))
    return PerHead([own, Dense(N, causal=True), shared], [2, 1, 2])


def test_it_tells_of_all_heads() -> None:
    layout = groups()
    mask = layout.dense_mask()
    assert mask.shape == (5, N, N)
    assert torch.equal(mask[2], torch.ones(N, N).tril().bool())
    assert torch.equal(mask[3], mask[4])
    assert layout.num_heads == 5
    assert layout.degrees.shape == (5, N)
    assert layout.num_edges == int(layout.degrees.sum())
    assert torch.equal(layout.degrees[2], torch.arange(N, 0, -1))


def test_each_group_attends_as_if_it_were_alone() -> None:
    inputs = random_inputs(num_tokens=N, head_dim=16, heads=5, batch=2)
    layout = groups()
    out, lse = sparse_attention(inputs.q, inputs.k, inputs.v, layout, return_lse=True)
    for heads, part in layout.groups():
        q, k, v = (x[:, heads] for x in (inputs.q, inputs.k, inputs.v))
        own_out, own_lse = sparse_attention(q, k, v, part, return_lse=True)
        assert torch.equal(out[:, heads], own_out)
        assert torch.equal(lse[:, heads], own_lse)


def test_gradients_reach_q_k_and_v() -> None:
    inputs = random_inputs(num_tokens=N, head_dim=16, heads=3)
    layout = PerHead([Dense(N), IndexList(torch.arange(N).flip(0)[:, None])], [1, 2])
    results = run(lambda q, k, v: sparse_attention(q, k, v, layout, return_lse=True), inputs)
    assert_as_exact_as_eager(results, inputs, layout)


def test_a_fused_projection_and_a_group_that_chooses_its_keys() -> None:
    qkv = torch.randn(2, N, 3, 2, 8)
    layout = PerHead([Nearest(N, num_nearest=4, chunk=8), Dense(N)], [1, 1])
    assert layout.depends_on_inputs
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    assert torch.equal(sparse_self_attention(qkv, layout), sparse_attention(q, k, v, layout))


def test_what_each_group_takes_is_explained() -> None:
    inputs = random_inputs(num_tokens=N, head_dim=16, heads=5)
    q, layout = inputs.q, groups()
    text = explain(q, q, q, layout)
    assert text.startswith("heads 0 to 1: reference (")
    assert "; head 2: " in text
    assert "; heads 3 to 4: reference (" in text
    names = choose("auto", q, q, q, layout).split(" and ")
    assert names[0] == "reference"
    assert choose("reference", q, q, q, layout) == "reference"
    assert why_not("chunked", q, q, q, layout) == "heads 0 to 1: it takes dense layouts, and the pattern is index list"
    with pytest.raises(ValueError, match="implementation='chunked': heads 0 to 1: it takes dense layouts"):
        sparse_attention(q, q, q, layout, implementation="chunked")


def test_it_moves_as_a_whole() -> None:
    layout = groups()
    assert layout.to("cpu") is layout
    assert layout.device == torch.device("cpu")
    moved = layout.to("meta")
    assert moved.device == torch.device("meta")
    assert moved.heads == layout.heads


def test_a_wrong_number_of_heads_is_named() -> None:
    inputs = random_inputs(num_tokens=N, head_dim=16, heads=4)
    with pytest.raises(ValueError, match="pattern: it has lists for 5 heads, q has 4"):
        sparse_attention(inputs.q, inputs.k, inputs.v, groups())


@pytest.mark.parametrize(
    ("layouts", "heads", "message"),
    [
        ([], [], r"heads=\[\]: expected 0 numbers"),
        ([Dense(3)], [1, 2], r"heads=\[1, 2\]: expected 1 numbers, one for each layout"),
        ([Dense(3)], [0], r"heads=\[0\]: expected 1 or more for each layout"),
        ([Dense(3), Dense(4)], [1, 1], "layouts: expected 3 queries and 3 keys in all of them, got 4 and 4"),
        ([awkward_layout("a hub", num_tokens=3, num_slots=1, heads=2)], [3], "has lists for 2 heads, not 3"),
    ],
)
def test_layouts_that_do_not_fit_are_named(layouts: list[Layout], heads: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerHead(layouts, heads)
