"""Queries that see every key, beside a table: in kernels for blocks, interpreted or on a GPU, and in plain torch."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from sparse_attention import IMPLEMENTATIONS, IndexList, full_rows, sparse_attention
from sparse_attention.testing import assert_as_exact_as_eager, awkward_layout, random_inputs, run
from sparse_attention.triton import why_not as why_not_triton

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [pytest.param(37, id="small"), pytest.param(5003, id="large", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def triton_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cpu":
        taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
        monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)


def attention(layout: IndexList, implementation: str = "triton"):
    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return sparse_attention(q, k, v, layout, implementation=implementation, return_lse=True)

    return attend


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(3,), (36, 0, 7)])
def test_they_are_as_exact_as_eager_torch(rows: tuple[int, ...], dtype: torch.dtype, size: int) -> None:
    inputs = random_inputs(num_tokens=size, head_dim=16, dtype=dtype, device=DEVICE, seed=size)
    layout = awkward_layout("scattered empty slots", num_tokens=size, num_slots=4, full_rows=rows, device=DEVICE)
    assert_as_exact_as_eager(run(attention(layout), inputs), inputs, layout)


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("heads", [None, 2])
def test_more_of_them_than_a_block_holds_over_other_keys_than_queries(heads: int | None) -> None:
    inputs = random_inputs(num_tokens=150, num_keys=70, head_dim=8, batch=2, device=DEVICE, seed=1)
    layout = awkward_layout(
        "a hub", num_tokens=150, num_slots=2, num_keys=70, heads=heads, full_rows=tuple(range(5, 140, 2)), device=DEVICE
    )
    assert_as_exact_as_eager(run(attention(layout), inputs), inputs, layout)


def test_the_table_and_they_are_taken_by_the_same_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_inputs(num_tokens=20, head_dim=8, device=DEVICE)
    layout = awkward_layout("duplicates", num_tokens=20, num_slots=2, full_rows=(4,), device=DEVICE)

    def refuse(*inputs: object) -> None:
        raise AssertionError("dense attention in plain torch")

    monkeypatch.setattr(full_rows, "dense_attention", refuse)
    run(attention(layout), inputs)
    with pytest.raises(AssertionError, match="plain torch"):
        run(attention(layout, "reference"), inputs)


def test_heads_that_blocks_cannot_take_go_through_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    why_not = lambda q, k, v, layout: why_not_triton(q.to("meta"), k, v, layout)  # noqa: E731
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", replace(IMPLEMENTATIONS["triton"], why_not=why_not))
    inputs = random_inputs(num_tokens=9, head_dim=272, heads=1, device=DEVICE)
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=2, full_rows=(4,), device=DEVICE)
    reason = IMPLEMENTATIONS["triton"].refusal(inputs.q, inputs.k, inputs.v, layout.full_rows_blocks)
    assert reason is not None
    assert "head_dim 272" in reason
    assert_as_exact_as_eager(run(attention(layout), inputs), inputs, layout)


def test_two_runs_are_equal_to_the_bit() -> None:
    inputs = random_inputs(num_tokens=80, head_dim=8, device=DEVICE)
    layout = awkward_layout("a hub", num_tokens=80, num_slots=3, full_rows=(5, 70), device=DEVICE)
    first, second = (vars(run(attention(layout), inputs)) for _ in range(2))
    assert all(torch.equal(result, second[name]) for name, result in first.items())


def test_a_layout_that_is_built_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("inductor" if DEVICE == "cuda" else "aot_eager")
    inputs = random_inputs(num_tokens=20, head_dim=8, device=DEVICE)
    layout = awkward_layout("duplicates", num_tokens=20, num_slots=2, full_rows=(4,), device=DEVICE)
    layout.build()
    compiled = torch.compile(attention(layout), fullgraph=True, backend=counter)
    torch.testing.assert_close(vars(run(compiled, inputs)), vars(run(attention(layout), inputs)))
    assert counter.frame_count == 1


def test_moving_a_layout_takes_their_blocks_along() -> None:
    layout = awkward_layout("duplicates", num_tokens=20, num_slots=2, full_rows=(4,))
    layout.build()
    moved = layout.to("meta").full_rows_blocks
    assert moved.device == torch.device("meta")
    assert moved.is_built(transposed=True)
    assert (moved.num_tokens, moved.num_keys) == (1, 20)
