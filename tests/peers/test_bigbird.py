"""BigBird's blocks against BigBirdBlockSparseAttention of Hugging Face, and what docs/the-question.md says of it."""

import pytest
import torch
from torch import Tensor

from sparse_attention import IndexList
from sparse_attention.layouts import EMPTY
from sparse_attention.patterns.bigbird import with_random_blocks
from sparse_attention.testing import Inputs, random_inputs

from .agreement import DEVICE, assert_same_attention

pytest.importorskip("transformers", reason='pip install -e ".[peers]"')

from benchmarks.hugging_face import BigBird

BLOCK, RANDOM, HEADS = 16, 3, 2
OLD_PLAN = 1024
"""One of the three lengths at which Hugging Face draws by other rules."""


def inputs_for(num_tokens: int, dtype: torch.dtype = torch.float32) -> Inputs:
    return random_inputs(num_tokens=num_tokens, head_dim=8, heads=HEADS, dtype=dtype, device=DEVICE, seed=num_tokens)


def drawn(num_tokens: int, *, seed: int = 0, training: bool = True) -> BigBird:
    """After one forward pass, so that the blocks it will draw again, by the same seed, are known."""
    peer = BigBird(heads=HEADS, head_dim=8, block_size=BLOCK, num_random=RANDOM, seed=seed, training=training)
    inputs = inputs_for(num_tokens)
    peer(inputs.q, inputs.k, inputs.v)
    return peer


def for_all_rows(random_blocks: Tensor) -> Tensor:
    """Hugging Face's blocks with the first and the last row, which see everything and need none."""
    return torch.nn.functional.pad(random_blocks, (0, 0, 1, 1), value=EMPTY)


def listed(random_blocks: Tensor, num_tokens: int) -> IndexList:
    """Window, global and random blocks key by key; a block that is listed twice counts twice."""
    last = num_tokens // BLOCK - 1
    rows = [sorted({0, row - 1, row, row + 1, last}) for row in range(1, last)]
    fixed = torch.tensor([row + [EMPTY] * (5 - len(row)) for row in rows], device=random_blocks.device)
    blocks = for_all_rows(torch.cat((fixed.expand(HEADS, -1, -1), random_blocks), dim=-1))
    keys = blocks.unsqueeze(-1) * BLOCK + torch.arange(BLOCK, device=blocks.device)
    keys = torch.where(blocks.unsqueeze(-1) >= 0, keys, EMPTY).flatten(start_dim=-2)
    ends = (*range(BLOCK), *range(last * BLOCK, num_tokens))
    return IndexList(keys.repeat_interleave(BLOCK, dim=1), full_rows=ends)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_blocks", [8, 12, 17])
def test_bigbird_equals_hugging_faces_over_the_blocks_it_draws(num_blocks: int, dtype: torch.dtype) -> None:
    num_tokens = num_blocks * BLOCK
    peer = drawn(num_tokens)
    layout = with_random_blocks(
        num_tokens, for_all_rows(peer.random_blocks), block_size=BLOCK, num_window=3, num_global=2
    )
    assert_same_attention(peer, inputs_for(num_tokens, dtype), layout)


def test_other_random_blocks_are_told_apart() -> None:
    peer, other = drawn(12 * BLOCK), drawn(12 * BLOCK, seed=1)
    with pytest.raises(AssertionError, match="out: error"):
        assert_same_attention(peer, inputs_for(12 * BLOCK), listed(other.random_blocks, 12 * BLOCK))


def test_in_evaluation_the_first_block_counts_once_more_for_each_random_block() -> None:
    peer = drawn(12 * BLOCK, training=False)
    assert not peer.random_blocks.any()
    assert_same_attention(peer, inputs_for(12 * BLOCK), listed(peer.random_blocks, 12 * BLOCK))


def test_at_1024_tokens_the_last_block_may_be_drawn_too_and_counts_twice() -> None:
    peer = drawn(OLD_PLAN)
    assert (peer.random_blocks == OLD_PLAN // BLOCK - 1).any()
    assert_same_attention(peer, inputs_for(OLD_PLAN), listed(peer.random_blocks, OLD_PLAN))


@pytest.mark.parametrize("num_tokens", [100 * BLOCK, 3072, 4096])
def test_all_random_blocks_lie_at_the_start_of_the_sequence(num_tokens: int) -> None:
    blocks = drawn(num_tokens).random_blocks
    reach = 1024 if num_tokens in (3072, 4096) else (2 * RANDOM + 5) * BLOCK
    assert int(blocks.max()) < reach // BLOCK


def test_each_forward_draws_the_same_blocks_anew_and_sets_numpys_seed() -> None:
    numpy = pytest.importorskip("numpy")
    peer, inputs = drawn(12 * BLOCK), inputs_for(12 * BLOCK)
    before, numbers = peer.random_blocks, []
    for _ in range(2):
        peer(inputs.q, inputs.k, inputs.v)
        numbers.append(numpy.random.random())
    assert torch.equal(peer.random_blocks, before)
    assert numbers[0] == numbers[1]


def test_one_short_sequence_makes_a_block_sparse_model_dense_for_good() -> None:
    from transformers import BigBirdConfig, BigBirdModel  # pyright: ignore[reportMissingImports]

    config = BigBirdConfig(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
    )
    model = BigBirdModel(config)
    shortest = (5 + 2 * RANDOM) * BLOCK + 1
    kinds = []
    for num_tokens in (shortest, shortest - 1, shortest):
        model(torch.zeros(1, num_tokens, dtype=torch.int64))
        kinds.append(model.encoder.layer[0].attention_type)
    assert kinds == ["block_sparse", "original_full", "original_full"]
