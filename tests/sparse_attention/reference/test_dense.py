"""Dense attention in plain torch against the float64 oracle."""

import pytest
import torch

from sparse_attention import Dense, sparse_attention
from sparse_attention.testing import assert_as_exact_as_eager, random_inputs, run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("num_tokens", "num_keys", "causal"), [(37, 37, True), (37, 37, False), (5, 60, False)])
def test_it_is_as_exact_as_eager_torch(
    num_tokens: int, num_keys: int, causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparse_attention.reference.dense.CHUNK_ELEMENTS", 7 * num_keys)
    layout = Dense(num_tokens, num_keys, causal=causal)
    inputs = random_inputs(num_tokens=num_tokens, num_keys=num_keys, head_dim=12, batch=2, dtype=dtype)
    results = run(
        lambda q, k, v: sparse_attention(q, k, v, layout, implementation="reference", return_lse=True), inputs
    )
    assert_as_exact_as_eager(results, inputs, layout)
