"""The kernels over the longer sequence, against float64 and as torch sees them: interpreted, or larger on a GPU."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sparse_attention import IMPLEMENTATIONS, HubsApart, patterns, sparse_attention, sparse_self_attention, why_not
from sparse_attention.layouts import block_work
from sparse_attention.ops import fused_hubs_apart_attention, hubs_apart_attention
from sparse_attention.ops.block_sparse import lists_of
from sparse_attention.testing import Inputs, Results, assert_as_exact_as_eager, random_inputs, run
from tests.sparse_attention.block_layouts import AWKWARD_HUBS, hubs_layout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
COMPILER = "inductor" if DEVICE == "cuda" else "aot_eager"
SIZES = [pytest.param(37, id="small"), pytest.param(1031, id="large", marks=pytest.mark.gpu)]
LAYOUT = hubs_layout("both ways", num_tokens=20, device=DEVICE, seed=1)


def check(inputs: Inputs, layout: HubsApart, scale: float = 0.3) -> Results:
    results = run(lambda q, k, v: hubs_apart_attention(q, k, v, layout, scale), inputs)
    assert_as_exact_as_eager(results, inputs, layout, scale=scale)
    return results


def attend(qkv: Tensor, layout: HubsApart = LAYOUT) -> Tensor:
    return fused_hubs_apart_attention(qkv, layout, 0.3)[0]


def fused_leaf(length: int = 20, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, 3, 2, 8, generator=generator).to(DEVICE).requires_grad_()


@pytest.fixture
def triton_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AWKWARD_HUBS)
def test_awkward_hubs_are_as_exact_as_eager_torch(name: str, size: int) -> None:
    check(
        random_inputs(num_tokens=size, head_dim=16, heads=1, device=DEVICE, seed=size),
        hubs_layout(name, num_tokens=size, device=DEVICE, seed=size),
    )


@pytest.mark.usefixtures("memory_full_of_nan")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_batch_in_every_dtype(dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=33, head_dim=20, batch=2, dtype=dtype, device=DEVICE, seed=5)
    check(inputs, hubs_layout("other keys than queries", num_tokens=33, device=DEVICE, seed=6))


@pytest.mark.usefixtures("memory_full_of_nan")
def test_queries_that_see_no_key_beside_hubs() -> None:
    layout = hubs_layout("one, that sees all", num_tokens=40, blocks="no block", device=DEVICE)
    results = check(random_inputs(num_tokens=40, head_dim=8, device=DEVICE), layout)
    assert int(results.lse.isfinite().sum()) == 2


@pytest.mark.usefixtures("memory_full_of_nan")
def test_long_rows_of_hubs_are_cut_and_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_work, "where_to_cut", lambda num_entries, num_rows, block_size: (2, 2))
    layout = hubs_layout("at both ends", num_tokens=70, device=DEVICE, seed=7)
    assert layout.blocks.work.num_segments > 0
    assert layout.blocks.transposed_work.num_segments > 0
    check(random_inputs(num_tokens=70, head_dim=16, device=DEVICE, seed=8), layout)


@pytest.mark.gpu
@pytest.mark.parametrize("num_hubs", [1, 70, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_hubs(num_hubs: int, dtype: torch.dtype) -> None:
    layout = patterns.hubs(5003, num_hubs=num_hubs, window=40, layout="hubs_apart").to("cuda")
    assert isinstance(layout, HubsApart)
    inputs = random_inputs(num_tokens=5003, head_dim=64, heads=1, dtype=dtype, device="cuda", seed=num_hubs)
    results = check(inputs, layout, scale=0.125)
    again = run(lambda q, k, v: hubs_apart_attention(q, k, v, layout, 0.125), inputs)
    assert all(torch.equal(result, vars(again)[name]) for name, result in vars(results).items())


@pytest.mark.parametrize(("num_hubs", "window", "two_way"), [(1, 0, True), (70, 3, True), (5, 8, False)])
def test_it_agrees_with_the_same_pattern_as_a_list_of_keys(num_hubs: int, window: int, two_way: bool) -> None:
    hubs = partial(patterns.hubs, 90, num_hubs=num_hubs, window=window, two_way=two_way)
    apart, listed = (hubs(layout=layout).to(DEVICE) for layout in ("hubs_apart", "index_list"))
    assert isinstance(apart, HubsApart)
    assert (apart.num_edges, apart.max_degree) == (listed.num_edges, listed.max_degree)
    assert torch.equal(apart.degrees, listed.degrees)
    inputs = random_inputs(num_tokens=90, head_dim=8, heads=1, device=DEVICE, seed=num_hubs)
    results = run(lambda q, k, v: sparse_attention(q, k, v, listed, return_lse=True), inputs)
    torch.testing.assert_close(vars(check(inputs, apart, 8**-0.5)), vars(results))


def test_two_runs_are_equal_to_the_bit() -> None:
    first, second = (torch.autograd.grad(attend(qkv).square().sum(), qkv) for qkv in [fused_leaf()] * 2)
    assert torch.equal(*first, *second)


@pytest.mark.usefixtures("triton_takes_all")
def test_the_public_calls_and_the_reference_agree() -> None:
    qkv = fused_leaf(batch=2)
    fused = sparse_self_attention(qkv, LAYOUT)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    parts = sparse_attention(q, k, v, LAYOUT)
    torch.testing.assert_close(fused, parts)
    reference = sparse_self_attention(qkv, LAYOUT, implementation="reference")
    torch.testing.assert_close(fused, reference)
    gradients = [torch.autograd.grad(out.square().sum(), qkv)[0] for out in (fused, parts, reference)]
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(gradients[0], gradients[2])


@pytest.mark.usefixtures("triton_takes_all")
def test_the_public_call_compiles_without_graph_breaks_and_not_again_for_a_new_length() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(COMPILER)
    compiled = torch.compile(lambda x, layout: sparse_self_attention(x, layout) * 2, fullgraph=True, backend=counter)
    for length in (20, 35, 50, 70):
        layout = patterns.hubs(length, num_hubs=3, window=2, layout="hubs_apart", block_size=16).to(DEVICE)
        layout.build()
        qkv = fused_leaf(length)
        (gradient,) = torch.autograd.grad(compiled(qkv, layout).sum(), qkv)
        (expected,) = torch.autograd.grad(sparse_self_attention(qkv, layout).sum() * 2, qkv)
        torch.testing.assert_close(gradient, expected)
    # Once for the first length, once more when the length turns out to vary.
    assert counter.frame_count == 2


def test_the_operators_pass_opcheck() -> None:
    LAYOUT.build()
    by_row, by_column = lists_of(LAYOUT.blocks, fused_leaf())
    copies = LAYOUT.rows_index, LAYOUT.columns_index, LAYOUT.first_copy, LAYOUT.blocks.num_tokens
    constants, qkv = (*copies, *by_row, *by_column, 0.3), fused_leaf()
    torch.library.opcheck(torch.ops.sparse_attention.hubs_apart_forward.default, (qkv, *constants))
    results = torch.ops.sparse_attention.hubs_apart_forward(qkv.detach(), *constants)
    arguments = (torch.randn_like(results[0]), None, qkv.detach(), *results, *constants)
    torch.library.opcheck(torch.ops.sparse_attention.hubs_apart_backward.default, arguments)


def test_plain_checkpointing_gives_the_same_gradients() -> None:
    qkv = fused_leaf()
    gradients = torch.autograd.grad(checkpoint(attend, qkv, use_reentrant=False).sum(), qkv)
    torch.testing.assert_close(gradients, torch.autograd.grad(attend(qkv).sum(), qkv))


def test_the_projection_is_kept_for_backward_and_no_copy_of_it() -> None:
    saved: list[Tensor] = []
    qkv = fused_leaf()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        attend(qkv)
    assert [x is qkv for x in saved if x.dim() == 5] == [True]


def test_a_gradient_that_reaches_lse_alone() -> None:
    qkv = fused_leaf()
    lse = fused_hubs_apart_attention(qkv, LAYOUT, 0.3)[1]
    (gradient,) = torch.autograd.grad(lse.sum(), qkv)
    q, k, _ = (part.transpose(1, 2) for part in qkv.unbind(2))
    score = (q @ k.mT * 0.3).masked_fill(~LAYOUT.dense_mask().to(DEVICE), -torch.inf)
    torch.testing.assert_close(gradient, torch.autograd.grad(score.logsumexp(dim=-1).sum(), qkv)[0])


def test_without_gradients_no_transposed_lists_are_built() -> None:
    layout = hubs_layout("both ways", num_tokens=20, device=DEVICE)
    with torch.no_grad():
        attend(fused_leaf(), layout)
    assert layout.blocks.is_built(transposed=False)
    assert not layout.blocks.is_built(transposed=True)


def test_autocast_casts_the_projection() -> None:
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out, lse = fused_hubs_apart_attention(fused_leaf(), LAYOUT, 0.3)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)


def test_flops_are_those_of_attended_pairs() -> None:
    layout = hubs_layout("other keys than queries", num_tokens=43, device=DEVICE, seed=2)
    with FlopCounterMode(display=False) as counter:
        attend(fused_leaf(43), layout).sum().backward()
    assert counter.get_total_flops() == 2 * 8 * layout.num_edges * 2 * (2 + 5)


def test_shapes_without_data() -> None:
    LAYOUT.build()
    with FakeTensorMode(allow_non_fake_inputs=True):
        qkv = torch.empty(2, 20, 3, 5, 16, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
        out, lse = fused_hubs_apart_attention(qkv, LAYOUT, 0.3)
        (gradient,) = torch.autograd.grad(out.sum(), qkv)
    assert (out.shape, lse.shape, gradient.shape) == ((2, 5, 20, 16), (2, 5, 20), qkv.shape)
    assert out.stride()[1:] == (16, 5 * 16, 1)


def test_it_is_refused_for_the_reasons_of_block_sparse_layouts() -> None:
    q = torch.empty(1, 1, 20, 520, dtype=torch.bfloat16, device="meta")
    reason = why_not("triton", q, q, q, LAYOUT.to("meta"))
    assert "head_dim 520 is more than the 512 of bfloat16" in str(reason)
