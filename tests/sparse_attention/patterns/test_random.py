"""random: drawn from the whole sequence, and the same again from the same seed."""

import pytest
import torch

from sparse_attention import patterns


def test_a_seed_gives_its_pattern_again_and_another_seed_another() -> None:
    first, again, other = (patterns.random(100, seed=seed).indices for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    patterns.random(100)
    assert torch.equal(torch.get_rng_state(), before)


def test_keys_are_spread_evenly_over_the_sequence() -> None:
    layout = patterns.random(1000, keys_per_query=200)
    assert layout.indices.shape == (1000, 200)
    # Degrees are binomial with mean 200 and deviation 14; five deviations hold all of 1000 keys.
    assert layout.degrees.sub(200).abs().max() < 5 * 14.2


def test_there_may_be_more_keys_a_query_than_tokens() -> None:
    assert patterns.random(2, keys_per_query=5).num_edges == 10


@pytest.mark.parametrize("options", [{"num_tokens": 0}, {"num_tokens": 9, "keys_per_query": 0}])
def test_an_option_that_cannot_be_used_is_named(options: dict[str, int]) -> None:
    name, value = list(options.items())[-1]
    with pytest.raises(ValueError, match=f"{name}={value}: expected a whole number, 1 or more"):
        patterns.random(**options)
