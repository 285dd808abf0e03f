"""sparse_attention as users call it: wrong inputs, the choice of implementation, and torch's own contexts."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from sparse_attention import (
    IMPLEMENTATIONS,
    BlockSparse,
    Dense,
    IndexList,
    explain,
    sparse_attention,
    sparse_self_attention,
    support,
    why_not,
)
from sparse_attention.support import Implementation
from sparse_attention.testing import Inputs, assert_as_exact_as_eager, awkward_layout, random_inputs, run

LAYOUT = awkward_layout("drawn at random", num_tokens=6, num_slots=2)
FULL = IndexList(torch.arange(6).expand(6, 6))


def tensors(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype)


def test_a_list_of_all_keys_is_dense_attention() -> None:
    q, k, v = tensors(2, 3, 6, 8)
    torch.testing.assert_close(sparse_attention(q, k, v, FULL), scaled_dot_product_attention(q, k, v))


def test_all_rows_full_is_dense_attention() -> None:
    q, k, v = tensors(2, 3, 6, 8)
    layout = IndexList(torch.full((6, 1), -1), full_rows=range(6))
    torch.testing.assert_close(sparse_attention(q, k, v, layout), scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize(
    ("dtype", "lse_dtype"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_out_has_the_dtype_of_q_and_lse_that_of_the_sums(dtype: torch.dtype, lse_dtype: torch.dtype) -> None:
    q, k, v = tensors(2, 3, 6, 8, dtype=dtype)
    out, lse = sparse_attention(q, k, v, LAYOUT, return_lse=True)
    assert (out.dtype, out.shape) == (dtype, (2, 3, 6, 8))
    assert (lse.dtype, lse.shape) == (lse_dtype, (2, 3, 6))


def test_views_into_a_fused_projection_come_back_token_major() -> None:
    fused = torch.randn(2, 6, 3, 4, 8)
    q, k, v = fused.permute(2, 0, 3, 1, 4)
    out = sparse_attention(q, k, v, LAYOUT)
    assert out.transpose(1, 2).is_contiguous()


BAD_INPUTS = {
    "no heads": (tensors(2, 6, 8), r"q: expected shape \(batch, heads, length, head_dim\), got \(2, 6, 8\)"),
    "head_dim 0": (tensors(1, 2, 6, 0), r"q: expected shape .* got \(1, 2, 6, 0\)"),
    "integers": (
        tuple(tensor.long() for tensor in tensors(1, 2, 6, 8)),
        "q: dtype int64 is not supported; expected one of",
    ),
    "mixed dtypes": (
        [*tensors(1, 2, 6, 8)[:2], torch.randn(1, 2, 6, 8, dtype=torch.float64)],
        "v: expected the dtype of q, float32, got float64",
    ),
    "mixed devices": (
        [*tensors(1, 2, 6, 8)[:2], torch.empty(1, 2, 6, 8, device="meta")],
        "v: expected the device of q, cpu, got meta",
    ),
    "too few queries": ([*tensors(1, 2, 5, 8)[:1], *tensors(1, 2, 6, 8)[:2]], "q: length 5, .* for 6 queries"),
    "too many keys": ([*tensors(1, 2, 6, 8)[:1], *tensors(1, 2, 7, 8)[:2]], "k: length 7, .* for 6 keys"),
    "other head count": (
        [*tensors(1, 2, 6, 8)[:1], *tensors(1, 1, 6, 8)[:2]],
        r"k: expected batch, heads and head_dim of q, \(1, 2, 8\), got \(1, 1, 8\)",
    ),
    "v of another width": (
        [*tensors(1, 2, 6, 8)[:2], torch.randn(1, 2, 6, 4)],
        r"v: expected the shape of k, \(1, 2, 6, 8\), got \(1, 2, 6, 4\)",
    ),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_inputs_that_do_not_fit_are_refused(name: str) -> None:
    (q, k, v), message = BAD_INPUTS[name]
    for call in (sparse_attention, explain):
        with pytest.raises(ValueError, match=message):
            call(q, k, v, LAYOUT)


def test_a_pattern_for_other_heads_is_refused() -> None:
    layout = awkward_layout("drawn at random", num_tokens=6, num_slots=2, heads=3)
    with pytest.raises(ValueError, match="pattern: it has lists for 3 heads, q has 2"):
        sparse_attention(*tensors(1, 2, 6, 8), layout)


def test_a_pattern_on_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern: it is on meta, q on cpu; move it once"):
        sparse_attention(*tensors(1, 2, 6, 8), LAYOUT.to("meta"))


def test_a_bare_table_is_no_pattern() -> None:
    with pytest.raises(ValueError, match="pattern: expected a layout, such as an IndexList, got Tensor"):
        sparse_attention(*tensors(1, 2, 6, 8), LAYOUT.indices)  # pyright: ignore


def test_an_unknown_implementation_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"implementation='cuda': expected one of auto, .*reference"):
        sparse_attention(*tensors(1, 2, 6, 8), LAYOUT, implementation="cuda")


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """An implementation that comes first and takes float64 only; its output is all ones."""

    def attend(q, k, v, layout, scale):
        return torch.ones_like(q), q.new_ones(q.shape[:-1])

    entry = Implementation(
        summary="takes float64",
        load={"index list": lambda: attend},
        why_not=lambda q, k, v, layout: None if q.dtype == torch.float64 else f"it takes float64, not {q.dtype}",
    )
    monkeypatch.setattr(support, "IMPLEMENTATIONS", {"picky": entry, **IMPLEMENTATIONS})
    monkeypatch.setattr("sparse_attention.api.IMPLEMENTATIONS", support.IMPLEMENTATIONS)


@pytest.mark.usefixtures("picky")
def test_auto_takes_the_first_implementation_that_fits() -> None:
    assert (sparse_attention(*tensors(1, 2, 6, 8, dtype=torch.float64), LAYOUT) == 1).all()
    assert not (sparse_attention(*tensors(1, 2, 6, 8), LAYOUT) == 1).all()


@pytest.mark.usefixtures("picky")
def test_an_explicit_request_that_cannot_be_met_is_an_error_with_the_reason() -> None:
    q, k, v = tensors(1, 2, 6, 8)
    assert why_not("picky", q, k, v, LAYOUT) == "it takes float64, not torch.float32"
    with pytest.raises(ValueError, match=r"implementation='picky': it takes float64, not torch\.float32"):
        sparse_attention(q, k, v, LAYOUT, implementation="picky")


@pytest.mark.usefixtures("picky")
def test_explain_says_what_was_taken_and_what_was_passed_over() -> None:
    q, k, v = tensors(1, 2, 6, 8)
    assert "; not picky: it takes float64, not torch.float32" in explain(q, k, v, LAYOUT)
    assert explain(q, k, v, LAYOUT).startswith("reference (plain torch, on any device)")
    assert explain(q.double(), k.double(), v.double(), LAYOUT) == "picky (takes float64)"


def test_the_reference_takes_whatever_fits_the_pattern() -> None:
    assert why_not("reference", *tensors(1, 2, 6, 8), LAYOUT) is None


def test_checkpointing_gives_the_same_gradients() -> None:
    inputs = random_inputs(num_tokens=6, head_dim=8)
    layout = awkward_layout("scattered empty slots", num_tokens=6, num_slots=3, full_rows=(1,))

    def plain(q, k, v):
        return sparse_attention(q, k, v, layout, return_lse=True)

    def checkpointed(q, k, v):
        return checkpoint(plain, q, k, v, use_reentrant=False)

    ours, theirs = run(checkpointed, inputs), run(plain, inputs)
    for name in ("out", "lse", "dq", "dk", "dv"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_casts_as_scaled_dot_product_attention_does(device: str, backward_inside: bool) -> None:
    inputs = random_inputs(num_tokens=6, head_dim=8, device=device)
    layout = awkward_layout("scattered empty slots", num_tokens=6, num_slots=3, full_rows=(1,), device=device)
    q, k, v = leaves = inputs.leaves()
    with torch.autocast(device, torch.bfloat16):
        out, lse = sparse_attention(q, k, v, layout, return_lse=True)
        assert out.dtype == scaled_dot_product_attention(q, k, v).dtype == torch.bfloat16
        assert lse.dtype == torch.float32
        loss = (out * inputs.grad_out).sum()
    with torch.autocast(device, torch.bfloat16, enabled=backward_inside):
        gradients = torch.autograd.grad(loss, leaves)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}

    rounded = inputs.to(torch.bfloat16)
    by_hand = run(lambda q, k, v: sparse_attention(q, k, v, layout, return_lse=True), without_lse(rounded))
    assert torch.equal(out, by_hand.out)
    for gradient, expected in zip(gradients, (by_hand.dq, by_hand.dk, by_hand.dv), strict=True):
        assert torch.equal(gradient, expected.float())


def without_lse(inputs: Inputs) -> Inputs:
    return Inputs(inputs.q, inputs.k, inputs.v, inputs.grad_out, torch.zeros_like(inputs.grad_lse))


def test_autocast_leaves_float64_alone() -> None:
    q, k, v = tensors(1, 2, 6, 8, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert sparse_attention(q, k, v, LAYOUT).dtype == scaled_dot_product_attention(q, k, v).dtype == torch.float64


@pytest.mark.parametrize("length", [1, 2, 100, 129])
def test_odd_lengths_with_full_rows_in_several_chunks(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparse_attention.reference.dense.CHUNK_ELEMENTS", 2 * length)
    inputs = random_inputs(num_tokens=length, head_dim=8, seed=length)
    layout = awkward_layout(
        "scattered empty slots", num_tokens=length, num_slots=3, full_rows=tuple(range(0, length, 20)), seed=length
    )
    results = run(lambda q, k, v: sparse_attention(q, k, v, layout, return_lse=True), inputs)
    assert_as_exact_as_eager(results, inputs, layout)


@pytest.mark.parametrize("full_rows", [(), (2,)])
def test_self_attention_over_one_projection_equals_attention_over_its_parts(full_rows: tuple[int, ...]) -> None:
    table = torch.randint(-1, 6, (6, 3), dtype=torch.int32)
    table[list(full_rows)] = -1
    layout = IndexList(table, full_rows=full_rows)
    joined = torch.randn(1, 6, 3, 2, 8, requires_grad=True)
    apart = joined.detach().clone().requires_grad_()
    q, k, v = (part.transpose(1, 2) for part in apart.unbind(2))
    out, expected = sparse_self_attention(joined, layout, scale=0.3), sparse_attention(q, k, v, layout, scale=0.3)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(out, expected)
    assert joined.grad is not None
    assert apart.grad is not None
    assert torch.equal(joined.grad, apart.grad)


def test_self_attention_says_which_shape_it_expects() -> None:
    message = r"qkv: expected shape \(batch, length, 3, heads, head_dim\), got \(1, 6, 2, 2, 8\)"
    with pytest.raises(ValueError, match=message):
        sparse_self_attention(torch.zeros(1, 6, 2, 2, 8), LAYOUT)


def test_a_kind_of_layout_that_nothing_takes_is_named() -> None:
    class Unheard(Dense):
        kind = "unheard of"

    with pytest.raises(ValueError, match="pattern: nothing here takes a layout of kind 'unheard of'; there are index"):
        sparse_attention(*tensors(1, 2, 6, 8), Unheard(6))


def test_autocast_leaves_what_is_not_floating_point_to_be_refused() -> None:
    q, k, v = tensors(1, 2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="q: dtype int64 is not supported"):
        sparse_attention(q.long(), k.long(), v.long(), LAYOUT)


@pytest.mark.parametrize("q", [None, [1.0]])
def test_what_is_no_tensor_is_named(q: object) -> None:
    _, k, v = tensors(1, 2, 6, 8)
    with pytest.raises(ValueError, match=f"q: expected a tensor, got {type(q).__name__}"):
        sparse_attention(q, k, v, LAYOUT)  # pyright: ignore


def test_explain_knows_of_lse() -> None:
    inputs = tensors(1, 2, 6, 8)
    assert explain(*inputs, Dense(6)).startswith("sdpa")
    assert explain(*inputs, Dense(6), return_lse=True).startswith("chunked")


@pytest.mark.parametrize("shape", [(0, 2, 6, 8), (1, 0, 6, 8)])
def test_no_sequences_or_no_heads_give_nothing(shape: tuple[int, ...]) -> None:
    blocks = BlockSparse.from_table(torch.zeros(1, 1, dtype=torch.int64), block_size=16, num_tokens=6)
    for layout in (LAYOUT, blocks, Dense(6)):
        q, k, v = torch.zeros(3, *shape).unbind()
        assert sparse_attention(q, k, v, layout).shape == shape
