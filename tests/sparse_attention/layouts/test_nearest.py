"""Nearest: the keys of the highest scores, as far as their hash brings them together."""

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from sparse_attention import Nearest, sparse_attention, why_not
from sparse_attention.testing import assert_as_exact_as_eager, random_inputs, run


def drawn(num_tokens: int, heads: int = 2, head_dim: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    inputs = random_inputs(num_tokens=num_tokens, head_dim=head_dim, heads=heads, seed=seed)
    return inputs.q, inputs.k


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 5, 61])
def test_in_a_short_sequence_the_nearest_of_all_keys_are_found(num_tokens: int, causal: bool) -> None:
    q, k = drawn(num_tokens)
    found = Nearest(num_tokens, num_nearest=4, chunk=64, causal=causal).resolve(q, k)
    score = (q @ k.transpose(-2, -1))[0]
    if causal:
        score = score.masked_fill(torch.ones_like(score).triu(1).bool(), -torch.inf)
    best, key = score.topk(min(4, num_tokens), dim=-1)
    expected = torch.zeros_like(score).scatter_(-1, key, (best > -torch.inf).float()).bool()
    assert torch.equal(found.dense_mask(), expected)


@pytest.mark.parametrize("num_tokens", [257, 1000])
def test_vectors_that_lie_together_find_each_other(num_tokens: int) -> None:
    # Each query is its own key, turned a little: that one is the nearest by far.
    generator = torch.Generator().manual_seed(num_tokens)
    k = torch.nn.functional.normalize(torch.randn(1, 1, num_tokens, 32, generator=generator), dim=-1)
    q = k + 0.02 * torch.randn(k.shape, generator=generator)
    found = Nearest(num_tokens, num_nearest=1, chunk=32).resolve(q, k).indices[0, :, 0]
    assert (found == torch.arange(num_tokens)).float().mean() > 0.8


def test_it_finds_more_of_the_best_keys_than_chance() -> None:
    q, k = drawn(1000, heads=1, head_dim=16)
    found = Nearest(1000, num_nearest=8, chunk=32).resolve(q, k).dense_mask()
    best = torch.zeros(1, 1000, 1000).scatter_(-1, (q @ k.transpose(-2, -1))[0].topk(8).indices, 1).bool()
    # Candidates drawn at random would be a tenth of all keys.
    assert (found & best).sum() > 2 * 0.096 * best.sum()


@pytest.mark.parametrize("causal", [False, True])
def test_each_query_lists_different_keys_none_after_it_when_causal(causal: bool) -> None:
    q, k = drawn(300)
    layout = Nearest(300, num_nearest=9, chunk=16, causal=causal).resolve(q, k)
    for row, keys in enumerate(layout.indices[1].tolist()):
        kept = [key for key in keys if key >= 0]
        assert len(kept) == len(set(kept))
        assert len(kept) == 9 or causal
        assert not causal or all(key <= row for key in kept)


def test_the_same_vectors_give_the_same_lists_and_another_seed_others() -> None:
    q, k = drawn(300)
    first, again, other = (Nearest(300, num_nearest=5, chunk=16, seed=seed).resolve(q, k).indices for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_batch_chooses_for_each_sequence_what_it_would_choose_alone() -> None:
    inputs = random_inputs(num_tokens=70, head_dim=8, heads=2, batch=3, seed=1)
    layout = Nearest(70, num_nearest=3, chunk=16)
    together, lse = sparse_attention(inputs.q, inputs.k, inputs.v, layout, return_lse=True)
    assert lse.shape == (3, 2, 70)
    for row in range(3):
        q, k, v = (x[row : row + 1] for x in (inputs.q, inputs.k, inputs.v))
        alone = sparse_attention(q, k, v, layout)
        torch.testing.assert_close(together[row : row + 1], alone)


def test_gradients_are_those_of_the_chosen_keys() -> None:
    inputs = random_inputs(num_tokens=75, head_dim=16, seed=2)
    layout = Nearest(75, num_nearest=5, chunk=16, causal=True)
    results = run(lambda q, k, v: sparse_attention(q, k, v, layout, return_lse=True), inputs)
    assert_as_exact_as_eager(results, inputs, layout.resolve(inputs.q, inputs.k))


def test_checkpointing_chooses_the_same_keys_again() -> None:
    inputs = random_inputs(num_tokens=75, head_dim=16, seed=3)
    layout = Nearest(75, num_nearest=5, chunk=16)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sparse_attention(q, k, v, layout)

    gradients = []
    for checkpointed in (False, True):
        leaves = inputs.leaves()
        call = torch.utils.checkpoint.checkpoint
        out = call(attend, *leaves, use_reentrant=False) if checkpointed else attend(*leaves)
        gradients.append(torch.autograd.grad(out, leaves, inputs.grad_out))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_the_choice_compiles_as_one_graph() -> None:
    q, k = drawn(75)
    layout = Nearest(75, num_nearest=5, chunk=16)
    compiled = torch.compile(lambda q, k: layout.resolve(q, k).indices, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k), layout.resolve(q, k).indices)


def test_what_depends_on_q_and_k_is_not_made_up() -> None:
    layout = Nearest(40, num_nearest=5)
    assert layout.depends_on_inputs
    assert (layout.num_edges, layout.num_slots) == (200, 5)
    for ask in (lambda: layout.degrees, lambda: layout.max_degree, layout.dense_mask):
        with pytest.raises(ValueError, match="known only for given q and k"):
            ask()


def test_its_projections_move_with_it() -> None:
    layout = Nearest(40, num_nearest=5)
    assert layout.to("cpu") is layout
    assert layout.to("meta").device == torch.device("meta")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tokens": 0, "num_nearest": 1}, "num_tokens=0: expected 1 or more"),
        ({"num_tokens": 9, "num_nearest": 0}, "num_nearest=0: expected 1 or more"),
        ({"num_tokens": 9, "num_nearest": 7, "chunk": 2}, "num_nearest=7: expected at most 3 times chunk=2"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nearest(**options)  # pyright: ignore[reportArgumentType]


def test_heads_too_wide_to_project_are_refused() -> None:
    q = torch.zeros(1, 1, 4, 1025)
    with pytest.raises(ValueError, match="head_dim 1025 is above 1024"):
        Nearest(4, num_nearest=1).resolve(q, q)


def test_autocast_does_not_change_the_choice() -> None:
    q, k = torch.randn(2, 1, 2, 500, 16).unbind()
    layout = Nearest(500, num_nearest=4, chunk=16)
    with torch.autocast("cpu", torch.bfloat16):
        chosen = layout.resolve(q, k)
    assert torch.equal(chosen.indices, layout.resolve(q, k).indices)


def test_scores_beyond_float16_do_not_lose_keys() -> None:
    q, k = torch.full((1, 1, 20, 64), -40.0).half(), torch.full((1, 1, 20, 64), 40.0).half()
    indices = Nearest(20, num_nearest=2, chunk=8, causal=True).resolve(q, k).indices[0]
    assert (indices >= 0).any(dim=1).sum() > 10
    assert (indices <= torch.arange(20)[:, None]).all()


def test_more_neighbours_than_the_kernels_take_are_named() -> None:
    q = torch.empty(1, 1, 9000, 64, device="meta")
    reason = why_not("triton", q, q, q, Nearest(9000, num_nearest=5000, chunk=2000).to("meta"))
    assert reason is not None
    assert "5000 keys" in reason
