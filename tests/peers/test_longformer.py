"""An attention window, alone and with global tokens, against LongformerSelfAttention of Hugging Face."""

import pytest
import torch

from sparse_attention import patterns
from sparse_attention.testing import random_inputs

from .agreement import DEVICE, assert_same_attention

pytest.importorskip("transformers", reason='pip install -e ".[peers]"')

from benchmarks.hugging_face import Longformer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_tokens", "window"), [(4, 2), (30, 5), (64, 8)])
def test_a_window_equals_longformers_of_twice_the_width(num_tokens: int, window: int, dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=num_tokens, head_dim=8, batch=2, dtype=dtype, device=DEVICE, seed=window)
    assert_same_attention(Longformer(window=window), inputs, patterns.window(num_tokens, window=window))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_global", [1, 7])
def test_global_tokens_and_a_window_equal_longformers_with_one_projection(num_global: int, dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=30, head_dim=8, batch=2, dtype=dtype, device=DEVICE, seed=num_global)
    peer = Longformer(window=5, num_global=num_global)
    assert_same_attention(peer, inputs, patterns.longformer(30, window=5, num_global=num_global))


def test_another_window_is_told_apart() -> None:
    inputs = random_inputs(num_tokens=30, head_dim=8, device=DEVICE)
    with pytest.raises(AssertionError, match="out: error"):
        assert_same_attention(Longformer(window=5), inputs, patterns.window(30, window=4))
