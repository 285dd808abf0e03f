"""The oracle and the error bound: they must be right themselves, and they must catch what is wrong."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from sparse_attention import IndexList
from sparse_attention.testing import (
    AWKWARD_TABLES,
    Results,
    as_fused_projection,
    assert_as_exact_as_eager,
    awkward_layout,
    dense_oracle,
    eager_attention,
    random_inputs,
    run,
    run_oracle,
)


def test_the_oracle_agrees_with_torch_under_a_mask() -> None:
    layout = awkward_layout("scattered empty slots", num_tokens=20, num_slots=5, full_rows=(4,))
    indices = torch.tensor([sorted(set(row)) + [-1] * (5 - len(set(row))) for row in layout.indices.tolist()])
    layout = IndexList(indices, full_rows=(4,))
    mask = torch.zeros(20, 20, dtype=torch.bool)
    for query, row in enumerate(indices.tolist()):
        mask[query, [key for key in row if key >= 0]] = True
    mask[4] = True
    seen = mask.any(dim=-1)
    inputs = random_inputs(num_tokens=20, head_dim=8, dtype=torch.float64)
    out, lse = dense_oracle(inputs.q, inputs.k, inputs.v, layout)
    expected = scaled_dot_product_attention(inputs.q, inputs.k, inputs.v, attn_mask=mask)
    torch.testing.assert_close(out[:, :, seen], expected[:, :, seen])
    score = (inputs.q @ inputs.k.mT / 8**0.5).masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(lse, score.logsumexp(dim=-1))


def test_the_gradients_of_the_oracle_are_those_of_its_outputs() -> None:
    layout = awkward_layout("empty rows", num_tokens=5, num_slots=2)
    inputs = random_inputs(num_tokens=5, head_dim=3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: dense_oracle(q, k, v, layout)[0], inputs.leaves())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_eager_attention_passes_its_own_bound(name: str, dtype: torch.dtype) -> None:
    layout = awkward_layout(name, num_tokens=17, num_slots=4, full_rows=(2, 3))
    inputs = random_inputs(num_tokens=17, head_dim=8, dtype=dtype)
    results = run(lambda q, k, v: eager_attention(q, k, v, layout), inputs)
    assert_as_exact_as_eager(results, inputs, layout, factor=1.0)


@pytest.mark.parametrize("name", Results.__dataclass_fields__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_wrong_element_breaks_the_bound(name: str, dtype: torch.dtype) -> None:
    layout = awkward_layout("drawn at random", num_tokens=17, num_slots=4)
    inputs = random_inputs(num_tokens=17, head_dim=8, dtype=dtype)
    results = run_oracle(inputs, layout)
    assert_as_exact_as_eager(results, inputs, layout)
    wrong = getattr(results, name).clone()
    wrong[0, 1, 3] *= 1.3
    with pytest.raises(AssertionError, match=f"{name}: error"):
        assert_as_exact_as_eager(replace(results, **{name: wrong}), inputs, layout)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_breaks_the_bound(wrong: float) -> None:
    layout = awkward_layout("drawn at random", num_tokens=17, num_slots=4)
    inputs = random_inputs(num_tokens=17, head_dim=8)
    results = run_oracle(inputs, layout)
    results.dk[0, 0, 0, 0] = wrong
    with pytest.raises(AssertionError, match="dk: finite where the oracle is not, or the reverse"):
        assert_as_exact_as_eager(results, inputs, layout)


def test_a_fused_projection_holds_the_same_numbers_in_one_storage() -> None:
    inputs = random_inputs(num_tokens=7, head_dim=4, batch=2)
    fused = as_fused_projection(inputs)
    assert torch.equal(fused.q, inputs.q)
    assert torch.equal(fused.v, inputs.v)
    assert len({tensor.untyped_storage().data_ptr() for tensor in (fused.q, fused.k, fused.v)}) == 1
    assert all(tensor.stride(-1) == 1 for tensor in (fused.q, fused.k, fused.v))
