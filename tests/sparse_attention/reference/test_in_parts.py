"""Attention in parts by the reference, against dense float64 attention."""

import pytest
import torch

from sparse_attention import sparse_attention
from sparse_attention.testing import random_inputs, run, run_oracle
from tests.sparse_attention.block_layouts import in_parts_layout


@pytest.mark.parametrize("hubs", [None, "both ways", "one, that sees all"])
def test_parts_make_the_whole_in_float64(hubs: str | None) -> None:
    layout = in_parts_layout(hubs, num_tokens=75, seed=3)
    inputs = random_inputs(num_tokens=75, head_dim=12, dtype=torch.float64, seed=4)
    results = run(lambda q, k, v: sparse_attention(q, k, v, layout, scale=0.3, return_lse=True), inputs)
    want = run_oracle(inputs, layout, scale=0.3)
    assert hubs == "both ways" or bool(results.lse.isinf().any())
    for result, expected in zip(vars(results).values(), vars(want).values(), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)
