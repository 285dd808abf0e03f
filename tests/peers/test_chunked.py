"""Attention in chunks against scaled_dot_product_attention of torch, whose gradients are autograd's."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from sparse_attention.layouts import Dense
from sparse_attention.testing import random_inputs

from .agreement import DEVICE, assert_same_attention

pytest.importorskip("transformers", reason='pip install -e ".[peers]"')


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 77, 1100])
def test_chunked_equals_torchs_dense_attention(num_tokens: int, causal: bool, dtype: torch.dtype) -> None:
    def peer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(q, k, v, is_causal=causal)

    inputs = random_inputs(num_tokens=num_tokens, head_dim=8, heads=1, dtype=dtype, device=DEVICE, seed=num_tokens)
    assert_same_attention(peer, inputs, Dense(num_tokens, causal=causal), implementation="chunked")
