"""The reference for hubs apart against dense float64 attention."""

import pytest
import torch

from sparse_attention import sparse_attention
from sparse_attention.testing import as_fused_projection, assert_as_exact_as_eager, random_inputs, run, run_oracle
from tests.sparse_attention.block_layouts import AWKWARD_HUBS, hubs_layout


@pytest.mark.parametrize("blocks", ["drawn at random", "no block"])
@pytest.mark.parametrize("name", AWKWARD_HUBS)
def test_awkward_hubs_equal_dense_attention_in_float64(name: str, blocks: str) -> None:
    layout = hubs_layout(name, num_tokens=75, blocks=blocks, seed=3)
    inputs = random_inputs(num_tokens=75, head_dim=12, dtype=torch.float64, seed=4)
    results = run(lambda q, k, v: sparse_attention(q, k, v, layout, scale=0.3, return_lse=True), inputs)
    want = run_oracle(inputs, layout, scale=0.3)
    for result, expected in zip(vars(results).values(), vars(want).values(), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_views_is_as_exact_as_eager_torch(dtype: torch.dtype) -> None:
    layout = hubs_layout("both ways", num_tokens=70, block_size=32, seed=1)
    inputs = as_fused_projection(random_inputs(num_tokens=70, head_dim=8, heads=3, batch=2, dtype=dtype, seed=2))
    results = run(lambda q, k, v: sparse_attention(q, k, v, layout, return_lse=True), inputs)
    assert_as_exact_as_eager(results, inputs, layout)
