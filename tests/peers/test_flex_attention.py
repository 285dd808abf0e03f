"""Patterns against torch's FlexAttention, which is given each pattern's rule as a function of two positions.

FlexAttention comes with torch; these tests wait for the extra all the same, to keep the ordinary suite quick.
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as flex

from sparse_attention import patterns
from sparse_attention.layouts import Layout
from sparse_attention.patterns.bigbird import with_random_blocks
from sparse_attention.testing import random_inputs

from .agreement import DEVICE, assert_same_attention

pytest.importorskip("transformers", reason='pip install -e ".[peers]"')
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

NUM_TOKENS, BLOCK = 121, 16
LENGTHS = (50, 1, 30, 40)
RANDOM_BLOCKS = torch.tensor([[-1, -1], [4, 5], [6, -1], [1, 5], [6, 1], [2, -1], [3, 2], [-1, -1]])

Rule = Callable[[Tensor, Tensor], Tensor]
"""(query, key) -> whether the query sees the key; both are positions, tensors without dims."""


def in_window(query: Tensor, key: Tensor) -> Tensor:
    return (query - key).abs() <= 5


def in_causal_window(query: Tensor, key: Tensor) -> Tensor:
    return (key <= query) & (query - key <= 5)


def at_dilated_distance(query: Tensor, key: Tensor) -> Tensor:
    distance = (query - key).abs()
    return (distance <= 3) | ((distance % 7 == 0) & (distance <= 21))


def in_one_stretch(query: Tensor, key: Tensor) -> Tensor:
    return query // 10 == key // 10


def in_bigbirds_blocks(query: Tensor, key: Tensor) -> Tensor:
    row, column = query // BLOCK, key // BLOCK
    last = (NUM_TOKENS - 1) // BLOCK
    is_global = (row == 0) | (row == last) | (column == 0) | (column == last)
    random = RANDOM_BLOCKS.to(row.device)
    return is_global | ((row - column).abs() <= 1) | (random[row, 0] == column) | (random[row, 1] == column)


def in_one_document(query: Tensor, key: Tensor) -> Tensor:
    ends = torch.tensor(LENGTHS, device=query.device).cumsum(0)
    return (ends <= query).sum() == (ends <= key).sum()


CASES: dict[str, tuple[Callable[..., Layout], Rule]] = {
    "window": (partial(patterns.window, window=5), in_window),
    "causal window": (partial(patterns.window, window=5, causal=True), in_causal_window),
    "dilated": (partial(patterns.dilated, window=3, dilations=[1, 7]), at_dilated_distance),
    "local": (partial(patterns.local, size=10), in_one_stretch),
    "documents": (partial(patterns.documents, lengths=LENGTHS), in_one_document),
}


@pytest.fixture(autouse=True)
def gradients_on_a_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention refuses to be differentiated on a CPU; uncompiled it has the formulas all the same."""
    if DEVICE == "cpu":
        monkeypatch.setattr(flex, "_validate_device", lambda *_: None)


def assert_flex_attention_agrees(rule: Rule, layout: Layout, dtype: torch.dtype) -> None:
    mask = flex.create_block_mask(lambda b, h, i, j: rule(i, j), None, None, NUM_TOKENS, NUM_TOKENS, device=DEVICE)

    def peer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = flex.flex_attention(q, k, v, block_mask=mask)
        assert isinstance(out, Tensor)
        return out

    inputs = random_inputs(num_tokens=NUM_TOKENS, head_dim=16, batch=2, dtype=dtype, device=DEVICE)
    assert_same_attention(peer, inputs, layout)


@pytest.mark.parametrize(("layout", "dtype"), [("index_list", torch.float32), ("block_sparse", torch.bfloat16)])
@pytest.mark.parametrize("name", CASES)
def test_the_pattern_equals_flex_attention_under_its_rule(name: str, layout: str, dtype: torch.dtype) -> None:
    pattern, rule = CASES[name]
    assert_flex_attention_agrees(rule, pattern(NUM_TOKENS, layout=layout, block_size=BLOCK), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bigbird_equals_flex_attention_under_its_rule(dtype: torch.dtype) -> None:
    layout = with_random_blocks(NUM_TOKENS, RANDOM_BLOCKS, block_size=BLOCK, num_window=3, num_global=2)
    assert_flex_attention_agrees(in_bigbirds_blocks, layout, dtype)


def test_another_rule_is_told_apart() -> None:
    with pytest.raises(AssertionError, match="out: error"):
        assert_flex_attention_agrees(in_causal_window, patterns.window(NUM_TOKENS, window=5), torch.float32)
