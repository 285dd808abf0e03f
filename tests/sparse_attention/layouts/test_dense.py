"""Dense: every key, or every key up to the query's own."""

import pytest
import torch

from sparse_attention import Dense


@pytest.mark.parametrize("causal", [False, True])
def test_it_counts_what_its_mask_holds(causal: bool) -> None:
    layout = Dense(5, causal=causal)
    mask = layout.dense_mask()
    assert mask.sum() == layout.num_edges == (15 if causal else 25)
    assert torch.equal(mask.sum(dim=0), layout.degrees)
    assert layout.max_degree == 5
    assert layout.density == layout.num_edges / 25


def test_it_fits_every_device() -> None:
    layout = Dense(5, 7)
    assert layout.to("meta") is layout
    assert layout.device is None
    assert layout.num_keys == 7


def test_a_causal_layout_needs_as_many_keys_as_queries() -> None:
    with pytest.raises(ValueError, match="causal=True: expected as many keys as queries, got 7 and 5"):
        Dense(5, 7, causal=True)


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens=0: expected 1 to"):
        Dense(0)
