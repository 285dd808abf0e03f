"""The reference implementation against the float64 oracle, on every awkward table and at every size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_attention import IndexList, sparse_attention
from sparse_attention.reference import index_list as reference
from sparse_attention.testing import (
    AWKWARD_TABLES,
    Attention,
    Inputs,
    Results,
    as_fused_projection,
    assert_as_exact_as_eager,
    awkward_layout,
    random_inputs,
    run,
)

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def attention(layout: IndexList, scale: float | None = None) -> Attention:
    return lambda q, k, v: sparse_attention(q, k, v, layout, scale=scale, implementation="reference", return_lse=True)


def check(inputs: Inputs, layout: IndexList, scale: float | None = None) -> Results:
    results = run(attention(layout, scale), inputs)
    assert_as_exact_as_eager(results, inputs, layout, scale=scale)
    return results


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_awkward_tables(name: str, dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=37, num_keys=53, head_dim=16, batch=2, dtype=dtype)
    check(inputs, awkward_layout(name, num_tokens=37, num_slots=6, num_keys=53))


@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_awkward_tables_of_their_own_for_each_head(name: str) -> None:
    inputs = random_inputs(num_tokens=37, head_dim=16, heads=3, batch=2)
    check(inputs, awkward_layout(name, num_tokens=37, num_slots=6, heads=3))


@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_full_rows_beside_awkward_tables(name: str) -> None:
    inputs = random_inputs(num_tokens=37, head_dim=16, batch=2)
    check(inputs, awkward_layout(name, num_tokens=37, num_slots=6, full_rows=(30, 0, 7)))


@pytest.mark.parametrize("head_dim", [1, 7, 8, 24, 100, 1024])
def test_any_head_dim(head_dim: int) -> None:
    inputs = random_inputs(num_tokens=11, head_dim=head_dim)
    check(inputs, awkward_layout("scattered empty slots", num_tokens=11, num_slots=3))


def test_lists_of_4096_keys() -> None:
    inputs = random_inputs(num_tokens=5, num_keys=4500, head_dim=8)
    check(inputs, awkward_layout("scattered empty slots", num_tokens=5, num_keys=4500, num_slots=4096))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_token(dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=1, head_dim=8, dtype=dtype)
    results = check(inputs, awkward_layout("drawn at random", num_tokens=1, num_slots=1))
    assert torch.equal(results.out, inputs.v)


@settings(deadline=None, max_examples=40)
@given(
    num_tokens=st.integers(1, 40),
    num_keys=st.integers(1, 40),
    num_slots=st.integers(1, 9),
    head_dim=st.integers(1, 20),
    heads=st.integers(1, 3),
    batch=st.integers(1, 2),
    per_head=st.booleans(),
    name=st.sampled_from(sorted(AWKWARD_TABLES)),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
def test_any_shape(
    num_tokens: int,
    num_keys: int,
    num_slots: int,
    head_dim: int,
    heads: int,
    batch: int,
    per_head: bool,
    name: str,
    dtype: torch.dtype,
    seed: int,
) -> None:
    inputs = random_inputs(
        num_tokens=num_tokens, num_keys=num_keys, head_dim=head_dim, heads=heads, batch=batch, dtype=dtype, seed=seed
    )
    check(
        inputs,
        awkward_layout(
            name,
            num_tokens=num_tokens,
            num_slots=num_slots,
            num_keys=num_keys,
            heads=heads if per_head else None,
            full_rows=(seed % num_tokens,) if seed % 3 == 0 else (),
            seed=seed,
        ),
    )


def test_many_chunks_give_what_one_chunk_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = random_inputs(num_tokens=101, head_dim=8)
    layout = awkward_layout("scattered empty slots", num_tokens=101, num_slots=5)
    monkeypatch.setitem(reference.CHUNK_ELEMENTS, "cpu", 7 * 5 * 8)
    check(inputs, layout)
    monkeypatch.setitem(reference.CHUNK_ELEMENTS, "cpu", 1)
    check(inputs, layout)


@pytest.mark.parametrize("scale", [0.0, 0.3, -1.0, 5.0])
def test_any_scale(scale: float) -> None:
    inputs = random_inputs(num_tokens=23, head_dim=8)
    check(inputs, awkward_layout("duplicates", num_tokens=23, num_slots=4), scale)


def test_scores_far_beyond_what_exp_can_hold() -> None:
    inputs = random_inputs(num_tokens=23, head_dim=8)
    check(inputs, awkward_layout("empty rows", num_tokens=23, num_slots=4), scale=300.0)


def test_views_into_a_fused_projection() -> None:
    inputs = as_fused_projection(random_inputs(num_tokens=23, head_dim=8, batch=2))
    assert not inputs.q.is_contiguous()
    check(inputs, awkward_layout("scattered empty slots", num_tokens=23, num_slots=4, full_rows=(3,)))


def test_expanded_gradients() -> None:
    inputs = random_inputs(num_tokens=23, head_dim=8)
    layout = awkward_layout("drawn at random", num_tokens=23, num_slots=4)
    q, k, v = inputs.leaves()
    out = sparse_attention(q, k, v, layout)
    weighted = torch.autograd.grad((out * torch.ones_like(out)).sum(), (q, k, v), retain_graph=True)
    plain = torch.autograd.grad(out.sum(), (q, k, v))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(plain, weighted, strict=True))


def test_a_query_without_keys_gives_zeros_and_an_lse_of_minus_infinity() -> None:
    inputs = random_inputs(num_tokens=12, head_dim=8)
    results = run(attention(awkward_layout("empty rows", num_tokens=12, num_slots=3)), inputs)
    assert not results.out[:, :, ::3].any()
    assert not results.dq[:, :, ::3].any()
    assert (results.lse[:, :, ::3] == -torch.inf).all()
    assert results.lse[:, :, 1::3].isfinite().all()


def test_a_key_that_nobody_sees_gets_no_gradient() -> None:
    inputs = random_inputs(num_tokens=12, head_dim=8)
    results = run(attention(awkward_layout("unseen keys", num_tokens=12, num_slots=3)), inputs)
    assert not results.dk[:, :, 6:].any()
    assert not results.dv[:, :, 6:].any()
    assert results.dv[:, :, :6].any()


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_keys_that_nobody_sees_may_hold_anything(poison: float) -> None:
    layout = IndexList(torch.tensor([[-1, 1, 2], [2, -1, -1], [-1, -1, -1]]))
    inputs = random_inputs(num_tokens=3, head_dim=8)
    clean = run(attention(layout), inputs)
    inputs.k[:, :, 0], inputs.v[:, :, 0] = poison, poison
    poisoned = run(attention(layout), inputs)
    for name in Results.__dataclass_fields__:
        assert torch.equal(getattr(poisoned, name), getattr(clean, name)), name


def test_nan_in_a_key_that_is_seen_reaches_outputs_and_gradients() -> None:
    layout = IndexList(torch.tensor([[0, 1], [1, 2], [2, -1]]))
    inputs = random_inputs(num_tokens=3, head_dim=8)
    inputs.k[:, :, 0] = torch.nan
    results = run(attention(layout), inputs)
    assert results.out.isnan().any(dim=-1)[0, 0].tolist() == [True, False, False]
    assert results.dq.isnan().any(dim=-1)[0, 0].tolist() == [True, False, False]
    assert results.dv.isnan().any(dim=-1)[0, 0].tolist() == [True, True, False]
    assert results.dk.isnan().any(dim=-1)[0, 0].tolist() == [True, True, False]


@pytest.mark.parametrize("gradient", [torch.nan, torch.inf, -torch.inf])
def test_a_gradient_that_reaches_the_lse_of_a_query_without_keys_goes_nowhere(gradient: float) -> None:
    layout = IndexList(torch.tensor([[-1, -1], [0, 1]]))
    q, k, v = (torch.randn(1, 1, 2, 4, requires_grad=True) for _ in range(3))
    _, lse = sparse_attention(q, k, v, layout, return_lse=True)
    gradients = torch.autograd.grad(lse, (q, k, v), torch.tensor([[[gradient, 1.0]]]))
    assert all(tensor.isfinite().all() for tensor in gradients)
    assert gradients[0][0, 0, 1].any()


def test_a_key_listed_twice_counts_twice() -> None:
    q, k, v = (torch.randn(1, 1, 1, 4), torch.randn(1, 1, 2, 4), torch.randn(1, 1, 2, 4))
    out, lse = sparse_attention(q, k, v, IndexList(torch.tensor([[0, 0, 1]]), num_keys=2), return_lse=True)
    weight = (q @ k.transpose(-2, -1) / 2).exp() * torch.tensor([2.0, 1.0])
    torch.testing.assert_close(out, weight @ v / weight.sum())
    torch.testing.assert_close(lse, weight.sum(dim=-1).log())


def test_lse_merges_two_halves_of_a_pattern_into_the_whole() -> None:
    layout = awkward_layout("drawn at random", num_tokens=31, num_slots=6)
    inputs = random_inputs(num_tokens=31, head_dim=8)
    halves = [IndexList(layout.indices[:, :3]), IndexList(layout.indices[:, 3:])]

    def merged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outs, lses = zip(*(attention(half)(q, k, v) for half in halves), strict=True)
        lse = torch.stack(lses).logsumexp(dim=0)
        first, second = ((part - lse).exp().unsqueeze(-1) * out for out, part in zip(outs, lses, strict=True))
        return first + second, lse

    assert_as_exact_as_eager(run(merged, inputs), inputs, layout)


@pytest.mark.parametrize("heads", [None, 2])
def test_gradcheck(heads: int | None) -> None:
    layout = awkward_layout("scattered empty slots", num_tokens=5, num_slots=3, heads=heads, full_rows=(2,))
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(1, 2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    seen = (layout.indices >= 0).any(dim=-1)
    seen[..., 2] = True

    def finite(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = attention(layout)(q, k, v)
        return out, lse.masked_fill(~seen, 0)

    assert torch.autograd.gradcheck(finite, leaves)


def test_two_runs_are_bitwise_equal() -> None:
    inputs = random_inputs(num_tokens=300, head_dim=32)
    layout = awkward_layout("a hub", num_tokens=300, num_slots=8, full_rows=(5,))
    first, second = (run(attention(layout), inputs) for _ in range(2))
    for name in Results.__dataclass_fields__:
        assert torch.equal(getattr(first, name), getattr(second, name)), name


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_awkward_tables_on_a_gpu(name: str, heads: int | None, dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=37, head_dim=16, batch=2, dtype=dtype, device="cuda")
    check(inputs, awkward_layout(name, num_tokens=37, num_slots=6, heads=heads, full_rows=(3,), device="cuda"))
