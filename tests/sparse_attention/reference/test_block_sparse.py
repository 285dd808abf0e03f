"""The reference for block sparse layouts against dense float64 attention."""

import zlib

import pytest
import torch

from sparse_attention import BlockSparse
from sparse_attention.reference import block_sparse
from sparse_attention.reference.block_sparse import attend
from sparse_attention.testing import (
    Inputs,
    Results,
    as_fused_projection,
    assert_as_exact_as_eager,
    random_inputs,
    run,
    run_oracle,
)
from tests.sparse_attention.block_layouts import AWKWARD_BLOCKS, block_layout


def results_of(inputs: Inputs, layout: BlockSparse, scale: float = 0.3) -> Results:
    return run(lambda q, k, v: attend(q, k, v, layout, scale), inputs)


@pytest.fixture(params=[1, 2**20], ids=["a row at a time", "chunks"])
def chunk_elements(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(block_sparse.CHUNK_ELEMENTS, "cpu", request.param)
    return request.param


@pytest.mark.usefixtures("chunk_elements")
@pytest.mark.parametrize("name", AWKWARD_BLOCKS)
def test_awkward_layouts_equal_dense_attention_in_float64(name: str) -> None:
    seed = zlib.crc32(name.encode())
    layout = block_layout(name, num_tokens=75, num_keys=83, seed=seed)
    inputs = random_inputs(num_tokens=75, num_keys=83, head_dim=12, dtype=torch.float64, seed=seed)
    want = run_oracle(inputs, layout, scale=0.3)
    for result, expected in zip(vars(results_of(inputs, layout)).values(), vars(want).values(), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [16, 64])
def test_it_is_as_exact_as_eager_torch(dtype: torch.dtype, size: int) -> None:
    layout = block_layout(num_tokens=150, block_size=size, seed=size)
    inputs = random_inputs(num_tokens=150, head_dim=20, dtype=dtype, seed=size)
    assert_as_exact_as_eager(results_of(inputs, layout), inputs, layout, scale=0.3)


def test_a_batch_with_lists_for_each_head_and_views_of_one_projection() -> None:
    layout = block_layout(num_tokens=70, block_size=32, heads=3, seed=1)
    inputs = as_fused_projection(random_inputs(num_tokens=70, head_dim=8, heads=3, batch=2, seed=2))
    assert_as_exact_as_eager(results_of(inputs, layout), inputs, layout, scale=0.3)


def test_queries_without_keys_and_keys_without_queries() -> None:
    layout = block_layout("empty rows", num_tokens=64, seed=3)
    inputs = random_inputs(num_tokens=64, head_dim=8, seed=4)
    out, lse = attend(*inputs.leaves(), layout, 0.3)
    seen = layout.dense_mask()
    assert not out[:, :, ~seen.any(dim=1)].any()
    assert (lse[:, :, ~seen.any(dim=1)] == -torch.inf).all()
    results = results_of(inputs, layout)
    assert not results.dq[:, :, ~seen.any(dim=1)].any()
    assert not results.dk[:, :, ~seen.any(dim=0)].any()
    assert not results.dv[:, :, ~seen.any(dim=0)].any()


def test_nan_in_the_gradient_of_an_infinite_lse_goes_nowhere() -> None:
    layout = block_layout("all blocks", num_tokens=40, partial=1.0, seed=5)
    layout = BlockSparse(
        layout.lists.row_of_entry, layout.lists.blocks, layout.lists.masks.clamp(max=1), layout.mask_words,
        block_size=16, num_tokens=40,
    )  # fmt: skip
    inputs = random_inputs(num_tokens=40, head_dim=8, seed=6)
    leaves = inputs.leaves()
    out, lse = attend(*leaves, layout, 0.3)
    assert (lse == -torch.inf).any()
    d_lse = inputs.grad_lse.masked_fill(lse == -torch.inf, torch.nan)
    gradients = torch.autograd.grad((out, lse), leaves, (inputs.grad_out, d_lse))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_two_runs_are_bitwise_equal() -> None:
    layout = block_layout("global rows and columns", num_tokens=130, seed=7)
    inputs = random_inputs(num_tokens=130, head_dim=8, seed=8)
    first, second = (results_of(inputs, layout) for _ in range(2))
    for name in Results.__dataclass_fields__:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
