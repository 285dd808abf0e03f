"""torch's own dense attention behind the same call: exact, compiled, and never by the kernel that holds all scores."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.dense_memory import call_of, overhead_bytes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from sparse_attention import Dense, IndexList, explain, sparse_attention, why_not
from sparse_attention.testing import (
    Inputs,
    as_fused_projection,
    assert_as_exact_as_eager,
    random_inputs,
    run,
    run_oracle,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16] + [torch.float64] * (DEVICE == "cpu")
NO_FUSED_KERNEL = "torch has no fused kernel for float32 and head_dim 8 on cpu, and its other one holds all scores"


def by_sdpa(layout: Dense, **options: Any) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda q, k, v: sparse_attention(q, k, v, layout, implementation="sdpa", **options)


def with_lse_of_the_reference(layout: Dense, **options: Any):
    """What the measure of exactness asks for; no gradient is sent through lse."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        lse = sparse_attention(q, k, v, layout, implementation="reference", return_lse=True, **options)[1]
        return by_sdpa(layout, **options)(q, k, v), lse

    return attention


def inputs_of(num_tokens: int, num_keys: int | None = None, **options: Any) -> Inputs:
    inputs = random_inputs(num_tokens=num_tokens, num_keys=num_keys, device=DEVICE, **options)
    inputs.grad_lse.zero_()
    return inputs


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_tokens", "num_keys", "causal"), [(137, 137, True), (137, 137, False), (5, 60, False), (60, 5, False)]
)
def test_it_is_as_exact_as_eager_torch(num_tokens: int, num_keys: int, causal: bool, dtype: torch.dtype) -> None:
    layout = Dense(num_tokens, num_keys, causal=causal)
    inputs = inputs_of(num_tokens, num_keys, head_dim=16, batch=2, dtype=dtype)
    assert_as_exact_as_eager(run(with_lse_of_the_reference(layout), inputs), inputs, layout)


@pytest.mark.parametrize("scale", [0.3, -2.0])
def test_any_scale(scale: float) -> None:
    inputs = inputs_of(19, head_dim=8)
    results = run(with_lse_of_the_reference(Dense(19), scale=scale), inputs)
    assert_as_exact_as_eager(results, inputs, Dense(19), scale=scale)


def test_views_into_a_fused_projection() -> None:
    inputs = inputs_of(21, head_dim=8, batch=2)
    results = run(with_lse_of_the_reference(Dense(21)), as_fused_projection(inputs))
    assert_as_exact_as_eager(results, inputs, Dense(21))


def test_auto_takes_it_for_dense_attention_and_chunks_where_lse_is_asked_for() -> None:
    q, k, v = inputs_of(9, head_dim=8).leaves()
    layout = Dense(9)
    assert explain(q, k, v, layout).startswith("sdpa (torch's fused dense attention)")
    assert torch.equal(sparse_attention(q, k, v, layout), by_sdpa(layout)(q, k, v))
    chunked = sparse_attention(q, k, v, layout, implementation="chunked", return_lse=True)
    for ours, theirs in zip(sparse_attention(q, k, v, layout, return_lse=True), chunked, strict=True):
        assert torch.equal(ours, theirs)


def test_lse_is_refused_with_the_reason() -> None:
    q, k, v = inputs_of(9, head_dim=8).leaves()
    with pytest.raises(ValueError, match="implementation='sdpa': it does not return the log-sum-exp"):
        sparse_attention(q, k, v, Dense(9), implementation="sdpa", return_lse=True)


def test_other_layouts_are_refused_with_the_reason() -> None:
    q, k, v = inputs_of(3, head_dim=8).leaves()
    layout = IndexList(torch.zeros(3, 1, dtype=torch.int32, device=DEVICE))
    assert why_not("sdpa", q, k, v, layout) == "it takes dense layouts, and the pattern is index list"


@pytest.mark.parametrize("allowed", [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION])
def test_without_a_fused_kernel_it_refuses_and_auto_takes_chunks(allowed: SDPBackend) -> None:
    q, k, v = random_inputs(num_tokens=9, head_dim=8).leaves()
    with sdpa_kernel(allowed):  # on a CPU, the one holds all scores and the other does not exist
        refusal = why_not("sdpa", q, k, v, Dense(9))
        assert refusal is not None
        assert refusal.startswith(NO_FUSED_KERNEL)
        with pytest.raises(ValueError, match=f"implementation='sdpa': {NO_FUSED_KERNEL}"):
            by_sdpa(Dense(9))(q, k, v)
        assert explain(q, k, v, Dense(9)).startswith("chunked (")
    assert why_not("sdpa", q, k, v, Dense(9)) is None


@pytest.mark.parametrize("mode", ["inference", "gradient"])
@pytest.mark.parametrize("rows_in_one_piece", [True, False])
def test_scores_are_never_all_in_memory(mode: str, rows_in_one_piece: bool) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not rows_in_one_piece:
            q, k, v = (x.mT.contiguous().mT for x in (q, k, v))
        return by_sdpa(Dense(2048))(q, k, v)

    device = torch.device(DEVICE)
    call = call_of(mode, attend, 2048, device)
    call()
    assert overhead_bytes(call, device) < 4 * 2048**2 / 2


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("head_dim", [6, 8, 64, 256, 264, 1024])
def test_what_it_takes_on_a_gpu_it_does_without_all_scores(dtype: torch.dtype, head_dim: int) -> None:
    q, k, v = (torch.randn(1, 1, 8192, head_dim, dtype=dtype, device="cuda") for _ in range(3))
    refusal = why_not("sdpa", q, k, v, Dense(8192))
    if dtype == torch.float64:
        assert refusal is not None
        assert "no fused kernel for float64" in refusal
    if refusal is None:
        by_sdpa(Dense(8192))(q, k, v)
        needed = overhead_bytes(lambda: by_sdpa(Dense(8192))(q, k, v), torch.device("cuda"))
        assert needed < q.element_size() * 8192**2 / 2


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks_into_the_same_result(dynamic: bool) -> None:
    torch._dynamo.reset()
    inputs = inputs_of(30, head_dim=8)
    leaves = inputs.leaves()
    plain = by_sdpa(Dense(30, causal=True))
    out = torch.compile(plain, fullgraph=True, backend="aot_eager", dynamic=dynamic)(*leaves)
    expected = plain(*leaves)
    assert torch.equal(out, expected)
    ours, theirs = (torch.autograd.grad(x, leaves, inputs.grad_out) for x in (out, expected))
    torch.testing.assert_close(ours, theirs)


def test_what_compiles_refuses_as_what_runs_does() -> None:
    torch._dynamo.reset()
    q, k, v = random_inputs(num_tokens=9, head_dim=8).leaves()
    compiled = torch.compile(lambda q, k, v: sparse_attention(q, k, v, Dense(9)), fullgraph=True, backend="aot_eager")
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.equal(compiled(q, k, v), sparse_attention(q, k, v, Dense(9), implementation="chunked"))


def test_shapes_without_data() -> None:
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 3, length, 8, requires_grad=True) for length in (9, 7, 7))
        assert why_not("sdpa", q, k, v, Dense(9, 7)) is None
        assert by_sdpa(Dense(9, 7))(q, k, v).shape == (2, 3, 9, 8)


def test_checkpointing_gives_the_same_gradients() -> None:
    inputs = random_inputs(num_tokens=30, head_dim=8)
    leaves = inputs.leaves()
    plain = by_sdpa(Dense(30))
    again = checkpoint(plain, *leaves, use_reentrant=False)
    ours, theirs = (torch.autograd.grad(out, leaves, inputs.grad_out) for out in (again, plain(*leaves)))
    for gradient, expected in zip(ours, theirs, strict=True):
        assert torch.equal(gradient, expected)


def test_autocast_casts_as_it_does_for_torch() -> None:
    q, k, v = random_inputs(num_tokens=30, head_dim=8).leaves()
    with torch.autocast("cpu", torch.bfloat16):
        out = by_sdpa(Dense(30))(q, k, v)
    assert torch.equal(out, by_sdpa(Dense(30))(q.bfloat16(), k.bfloat16(), v.bfloat16()))
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("implementation", ["sdpa", "chunked", "reference"])
@pytest.mark.parametrize("scale", [-0.7, 0.0])
@pytest.mark.parametrize("causal", [False, True])
def test_scales_from_zero_down(implementation: str, scale: float, causal: bool) -> None:
    inputs = random_inputs(num_tokens=9, head_dim=16)
    layout = Dense(9, causal=causal)
    leaves = inputs.leaves()
    out = sparse_attention(*leaves, layout, scale=scale, implementation=implementation)
    results = (out, *torch.autograd.grad(out, leaves, inputs.grad_out))
    exact = run_oracle(replace(inputs, grad_lse=torch.zeros_like(inputs.grad_lse)), layout, scale=scale)
    for ours, theirs in zip(results, (exact.out, exact.dq, exact.dk, exact.dv), strict=True):
        torch.testing.assert_close(ours, theirs.float())
