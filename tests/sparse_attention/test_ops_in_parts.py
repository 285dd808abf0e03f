"""The merge of two parts and attention in parts, against float64 and as torch sees them."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sparse_attention import IMPLEMENTATIONS, InParts, patterns, sparse_attention, sparse_self_attention, why_not
from sparse_attention.ops import fused_in_parts_attention, in_parts_attention
from sparse_attention.ops.in_parts import merge
from sparse_attention.reference.in_parts import merge as reference_merge
from sparse_attention.testing import assert_as_exact_as_eager, random_inputs, run
from tests.sparse_attention.block_layouts import in_parts_layout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMPILER = "inductor" if DEVICE == "cuda" else "aot_eager"
SIZES = [pytest.param(37, id="small"), pytest.param(1031, id="large", marks=pytest.mark.gpu)]
LAYOUT = in_parts_layout(num_tokens=20, device=DEVICE, seed=1)
UNION = partial(
    patterns.union, patterns=[partial(patterns.hubs, num_hubs=70, window=16), partial(patterns.random)],
    layout="in_parts",
)  # fmt: skip


def attend(qkv: Tensor, layout: InParts = LAYOUT) -> Tensor:
    return fused_in_parts_attention(qkv, layout, 0.3)[0]


def fused_leaf(length: int = 20, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, 3, 2, 8, generator=generator).to(DEVICE).requires_grad_()


def results_to_merge(num_queries: int, head_dim: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Two of out (1, 3, n, d), stored token by token, and lse (1, 3, n); a third of the queries sees nothing in each,
    some of them in both."""
    generator = torch.Generator().manual_seed(seed)
    results = []
    for _ in range(2):
        out = torch.randn(1, num_queries, 3, head_dim, generator=generator, dtype=torch.float64).transpose(1, 2)
        lse = 3 * torch.randn(1, 3, num_queries, generator=generator, dtype=torch.float64)
        empty = torch.rand(lse.shape, generator=generator) < 0.3
        results += [out.masked_fill(empty.unsqueeze(-1), 0).to(DEVICE, dtype), lse.masked_fill(empty, -torch.inf)]
    kept = torch.promote_types(dtype, torch.float32)
    return [x.to(DEVICE, kept if x.dim() == 3 else dtype) for x in results]


def merged_with_gradients(merge_two, results: list[Tensor], d_out: Tensor, d_lse: Tensor) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in results]
    out, lse = merge_two(tuple(leaves[:2]), tuple(leaves[2:]))
    d_lse = d_lse.to(lse.dtype).masked_fill(lse == -torch.inf, 0)
    return [out.detach(), lse.detach(), *torch.autograd.grad((out, lse), leaves, (d_out.to(out.dtype), d_lse))]


@pytest.fixture
def triton_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head_dim", [8, 80, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_merge_is_exact_but_for_the_rounding_of_its_result(dtype: torch.dtype, head_dim: int, size: int) -> None:
    results = results_to_merge(size, head_dim, dtype, seed=size)
    d_out, d_lse = torch.randn_like(results[0]), torch.randn_like(results[1])
    ours = merged_with_gradients(merge, results, d_out, d_lse)
    want = merged_with_gradients(reference_merge, [x.double() for x in results], d_out, d_lse)
    single = torch.finfo(torch.float32).eps
    for result, expected in zip(ours, want, strict=True):
        terms = head_dim if result.dim() == 3 else 2
        rounding = torch.finfo(result.dtype).eps + 4 * single
        torch.testing.assert_close(result.double(), expected, rtol=rounding, atol=(terms + 8) * single)


def test_the_reference_merges_as_attention_over_all_keys_at_once() -> None:
    q, k, v = (torch.randn(1, 2, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def over(keys: slice) -> tuple[Tensor, Tensor]:
        score = q @ k[:, :, keys].mT
        return score.softmax(dim=-1) @ v[:, :, keys], score.logsumexp(dim=-1)

    whole, parts = over(slice(9)), reference_merge(over(slice(4)), over(slice(4, 9)))
    torch.testing.assert_close(parts, whole)
    gradients = [torch.autograd.grad(out.square().sum() + lse.sum(), (q, k, v)) for out, lse in (whole, parts)]
    torch.testing.assert_close(*gradients)


def test_what_reaches_the_lse_of_a_query_without_keys_goes_no_further() -> None:
    results = [x.requires_grad_() for x in results_to_merge(30, 8, torch.float32)]
    _, lse = merge(tuple(results[:2]), tuple(results[2:]))  # pyright: ignore[reportArgumentType]
    assert bool(lse.isinf().any())
    d_lse = torch.where(lse.isinf(), torch.nan, 1.0)
    gradients = torch.autograd.grad(lse, results, d_lse)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_the_operators_pass_opcheck() -> None:
    results = [x.requires_grad_() for x in results_to_merge(20, 8, torch.float32)]
    torch.library.opcheck(torch.ops.sparse_attention.merge_forward.default, tuple(results))
    constants = [x.detach() for x in results]
    for gradients in ((torch.randn_like(constants[0]), None), (None, torch.randn_like(constants[1]))):
        torch.library.opcheck(torch.ops.sparse_attention.merge_backward.default, (*gradients, *constants))


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("hubs", [None, "both ways", "one, that sees all"])
def test_parts_are_as_exact_as_eager_torch(hubs: str | None, size: int) -> None:
    layout = in_parts_layout(hubs, num_tokens=size, device=DEVICE, seed=size)
    inputs = random_inputs(num_tokens=size, head_dim=16, batch=2, device=DEVICE, seed=size)
    results = run(lambda q, k, v: in_parts_attention(q, k, v, layout, 0.25), inputs)
    assert_as_exact_as_eager(results, inputs, layout, scale=0.25)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_real_union(dtype: torch.dtype) -> None:
    layout = UNION(5003).to("cuda")
    assert isinstance(layout, InParts)
    inputs = random_inputs(num_tokens=5003, head_dim=64, heads=1, dtype=dtype, device="cuda", seed=5)
    results = run(lambda q, k, v: in_parts_attention(q, k, v, layout, 0.125), inputs)
    assert_as_exact_as_eager(results, inputs, layout, scale=0.125)
    again = run(lambda q, k, v: in_parts_attention(q, k, v, layout, 0.125), inputs)
    assert all(torch.equal(result, vars(again)[name]) for name, result in vars(results).items())


def test_two_runs_are_equal_to_the_bit() -> None:
    qkv = fused_leaf()
    first, second = (torch.autograd.grad(attend(qkv).square().sum(), qkv) for _ in range(2))
    assert torch.equal(*first, *second)


@pytest.mark.usefixtures("triton_takes_all")
def test_the_public_calls_and_the_reference_agree() -> None:
    qkv = fused_leaf(batch=2)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    outs = [
        sparse_self_attention(qkv, LAYOUT),
        sparse_attention(q, k, v, LAYOUT),
        sparse_self_attention(qkv, LAYOUT, implementation="reference"),
    ]
    gradients = [torch.autograd.grad(out.square().sum(), qkv)[0] for out in outs]
    for out, gradient in zip(outs, gradients, strict=True):
        torch.testing.assert_close(out, outs[0])
        torch.testing.assert_close(gradient, gradients[0])


@pytest.mark.usefixtures("triton_takes_all")
def test_the_public_call_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(COMPILER)
    compiled = torch.compile(lambda x, layout: sparse_self_attention(x, layout) * 2, fullgraph=True, backend=counter)
    for length in (20, 35, 50):
        layout = in_parts_layout(num_tokens=length, device=DEVICE, seed=length)
        layout.build()
        qkv = fused_leaf(length)
        (gradient,) = torch.autograd.grad(compiled(qkv, layout).sum(), qkv)
        (expected,) = torch.autograd.grad(sparse_self_attention(qkv, layout).sum() * 2, qkv)
        torch.testing.assert_close(gradient, expected)
    assert counter.frame_count == 2


def test_plain_checkpointing_gives_the_same_gradients() -> None:
    qkv = fused_leaf()
    gradients = torch.autograd.grad(checkpoint(attend, qkv, use_reentrant=False).sum(), qkv)
    torch.testing.assert_close(gradients, torch.autograd.grad(attend(qkv).sum(), qkv))


def test_flops_are_those_of_attended_pairs() -> None:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        attend(fused_leaf())
    assert counter.get_total_flops() == 2 * 8 * LAYOUT.num_edges * 2 * 2


def test_shapes_without_data() -> None:
    LAYOUT.build()
    with FakeTensorMode(allow_non_fake_inputs=True):
        qkv = torch.empty(2, 20, 3, 5, 16, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
        out, lse = fused_in_parts_attention(qkv, LAYOUT, 0.3)
        (gradient,) = torch.autograd.grad(out.sum(), qkv)
    assert (out.shape, lse.shape, gradient.shape) == ((2, 5, 20, 16), (2, 5, 20), qkv.shape)
    assert out.stride() == (20 * 5 * 16, 16, 5 * 16, 1)


def test_it_is_refused_for_the_reason_of_a_part() -> None:
    q = torch.empty(1, 1, 20, 520, dtype=torch.bfloat16, device="meta")
    assert "head_dim 520 is more than the 512 of bfloat16" in str(why_not("triton", q, q, q, LAYOUT.to("meta")))
