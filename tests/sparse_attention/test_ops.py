"""The operators as torch sees them: opcheck, compile, checkpoints, autocast, shapes without data, FLOPs."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from sparse_attention import IMPLEMENTATIONS, IndexList, sparse_self_attention
from sparse_attention.ops import fused_index_list_attention, index_list_attention
from sparse_attention.testing import as_fused_projection, awkward_layout, random_inputs

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPS = torch.ops.sparse_attention
LAYOUT = awkward_layout("scattered empty slots", num_tokens=9, num_slots=4, device=DEVICE, seed=1)
LISTS = (LAYOUT.transposed.offsets, LAYOUT.transposed.edges, LAYOUT.transposed.order)
COMPILER = "inductor" if DEVICE == "cuda" else "aot_eager"


def leaves(length: int = 9, fused: bool = False, seed: int = 0) -> list[Tensor]:
    inputs = random_inputs(num_tokens=length, head_dim=8, device=DEVICE, seed=seed)
    inputs = as_fused_projection(inputs) if fused else inputs
    return [tensor.detach().requires_grad_() for tensor in (inputs.q, inputs.k, inputs.v)]


def fused_leaf(length: int = 9) -> Tensor:
    q, k, v = leaves(length)
    return torch.stack((q, k, v)).permute(1, 3, 0, 2, 4).detach().contiguous().requires_grad_()


def attend(q: Tensor, k: Tensor, v: Tensor, layout: IndexList = LAYOUT) -> Tensor:
    return index_list_attention(q, k, v, layout, 0.3)[0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("num_slots", [4, 9])
def test_forward_passes_opcheck(fused: bool, num_slots: int) -> None:
    layout = awkward_layout("scattered empty slots", num_tokens=9, num_slots=num_slots, device=DEVICE)
    lists = (layout.transposed.offsets, layout.transposed.edges, layout.transposed.order)
    torch.library.opcheck(OPS.index_list_forward.default, (*leaves(fused=fused), layout.indices, *lists, 0.3))


def test_backward_passes_opcheck() -> None:
    q, k, v = (tensor.detach() for tensor in leaves(fused=True))
    results = OPS.index_list_forward(q, k, v, LAYOUT.indices, *LISTS, 0.3)
    arguments = (torch.randn_like(results[0]), None, q, k, v, *results, LAYOUT.indices, *LISTS, 0.3)
    torch.library.opcheck(OPS.index_list_backward.default, arguments)


def test_fused_operators_pass_opcheck() -> None:
    qkv = fused_leaf()
    torch.library.opcheck(OPS.fused_index_list_forward.default, (qkv, LAYOUT.indices, *LISTS, 0.3))
    results = OPS.fused_index_list_forward(qkv.detach(), LAYOUT.indices, *LISTS, 0.3)
    arguments = (torch.randn_like(results[0]), None, qkv.detach(), *results, LAYOUT.indices, *LISTS, 0.3)
    torch.library.opcheck(OPS.fused_index_list_backward.default, arguments)


@pytest.mark.parametrize(("num_slots", "is_kept"), [(4, False), (9, True)])
def test_the_output_is_kept_only_where_backward_reads_it(num_slots: int, is_kept: bool) -> None:
    layout = awkward_layout("scattered empty slots", num_tokens=9, num_slots=num_slots, device=DEVICE)
    out, _ = fused_index_list_attention(fused_leaf(), layout, 0.3)
    assert out.grad_fn is not None
    saved = out.grad_fn.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
    assert any(each is not None and each.shape == out.shape for each in saved) is is_kept


def test_the_fused_gradient_is_one_contiguous_tensor() -> None:
    qkv = fused_leaf()
    (gradient,) = torch.autograd.grad(fused_index_list_attention(qkv, LAYOUT, 0.3)[0].sum(), qkv)
    assert gradient.shape == qkv.shape
    assert gradient.is_contiguous()


def test_compiles_without_graph_breaks_and_not_again_for_a_new_length() -> None:
    torch._dynamo.reset()
    layouts = {n: awkward_layout("drawn at random", num_tokens=n, num_slots=4, device=DEVICE) for n in (9, 12, 17, 23)}
    lists = {n: (x.transposed.offsets, x.transposed.edges, x.transposed.order) for n, x in layouts.items()}
    counter = CompileCounterWithBackend(COMPILER)

    @partial(torch.compile, fullgraph=True, backend=counter, dynamic=None)
    def compiled(q: Tensor, k: Tensor, v: Tensor, indices: Tensor, *by_key: Tensor) -> Tensor:
        return OPS.index_list_forward(q, k, v, indices, *by_key, 0.3)[0] * 2

    for length, layout in layouts.items():
        q, k, v = leaves(length, seed=length)
        compiled(q, k, v, layout.indices, *lists[length]).sum().backward()
        want = torch.autograd.grad(attend(q, k, v, layout).sum() * 2, (q, k, v))
        torch.testing.assert_close((q.grad, k.grad, v.grad), want)
    # Once for the first length, once more when the length turns out to vary.
    assert counter.frame_count == 2


def test_compiles_with_the_layout_as_a_constant() -> None:
    torch._dynamo.reset()
    q, k, v = leaves()
    compiled = torch.compile(attend, fullgraph=True, backend=COMPILER)
    torch.testing.assert_close(compiled(q, k, v), attend(q, k, v))


def test_the_public_call_compiles_without_graph_breaks_and_not_again_for_a_new_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch._dynamo.reset()
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)
    counter = CompileCounterWithBackend(COMPILER)
    compiled = torch.compile(lambda x, layout: sparse_self_attention(x, layout) * 2, fullgraph=True, backend=counter)
    for length in (9, 12, 17, 23):
        layout = awkward_layout("drawn at random", num_tokens=length, num_slots=4, device=DEVICE)
        assert layout.transposed is not None  # built once for a pattern, outside of what is compiled
        qkv = torch.randn(1, length, 3, 2, 8, device=DEVICE, requires_grad=True)
        (gradient,) = torch.autograd.grad(compiled(qkv, layout).sum(), qkv)
        (expected,) = torch.autograd.grad(sparse_self_attention(qkv, layout).sum() * 2, qkv)
        torch.testing.assert_close(gradient, expected)
    assert counter.frame_count == 2


def test_a_new_pattern_can_be_made_within_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)

    def attend_to_the_next(qkv: Tensor, indices: Tensor) -> Tensor:
        return sparse_self_attention(qkv, IndexList(indices, validate=False))

    compiled = torch.compile(attend_to_the_next, fullgraph=True, backend=COMPILER)
    qkv = torch.randn(1, 9, 3, 2, 8, device=DEVICE, requires_grad=True)
    for shift in range(3):
        indices = ((torch.arange(9, device=DEVICE)[:, None] + torch.arange(3, device=DEVICE) + shift) % 9).int()
        (gradient,) = torch.autograd.grad(compiled(qkv, indices).sum(), qkv)
        (expected,) = torch.autograd.grad(attend_to_the_next(qkv, indices).sum(), qkv)
        torch.testing.assert_close(gradient, expected)


def counted_forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from sparse_attention.ops import index_list as ops

    calls, launch = [], ops._launch_forward
    monkeypatch.setattr(ops, "_launch_forward", lambda *arguments: calls.append(1) or launch(*arguments))
    return calls


def test_plain_checkpointing_computes_forward_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_forwards(monkeypatch)
    q, k, v = leaves()
    out = checkpoint(attend, q, k, v, use_reentrant=False)
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert len(calls) == 2
    torch.testing.assert_close(gradients, torch.autograd.grad(attend(q, k, v).sum(), (q, k, v)))


def test_selective_checkpointing_can_save_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_forwards(monkeypatch)
    saved = {OPS.index_list_forward.default}

    def policy(context: object, operator: object, *arguments: object, **keywords: object) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operator in saved else CheckpointPolicy.PREFER_RECOMPUTE

    q, k, v = leaves()
    contexts = partial(create_selective_checkpoint_contexts, policy)
    out = checkpoint(lambda *x: attend(*x).sin(), q, k, v, use_reentrant=False, context_fn=contexts)
    gradients = torch.autograd.grad(out.sum(), (q, k, v))
    assert len(calls) == 1
    torch.testing.assert_close(gradients, torch.autograd.grad(attend(q, k, v).sin().sum(), (q, k, v)))


def test_weights_are_kept_only_where_backward_will_want_them() -> None:
    q, k, v = (tensor.detach() for tensor in leaves())
    assert OPS.index_list_forward(q, k, v, LAYOUT.indices, None, None, None, 0.3)[2].numel() == 0
    assert OPS.index_list_forward(q, k, v, LAYOUT.indices, *LISTS, 0.3)[2].shape == (1, 2, 9, 4)
    assert OPS.index_list_forward(q, k, v, LAYOUT.indices.repeat(1, 3), *LISTS, 0.3)[2].numel() == 0


def test_without_gradients_no_transposed_lists_are_built() -> None:
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=4, device=DEVICE)
    with torch.no_grad():
        attend(*leaves(), layout=layout)
    assert "transposed" not in vars(layout)


def test_autocast_casts_a_fused_projection() -> None:
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out, lse = fused_index_list_attention(fused_leaf(), LAYOUT, 0.3)
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_shapes_without_data(device: str) -> None:
    with FakeTensorMode():
        q = torch.empty(2, 3, 50, 64, dtype=torch.bfloat16, device=device)
        indices = torch.empty(50, 4, dtype=torch.int32, device=device)
        out, lse, weights = OPS.index_list_forward(q, q, q, indices, indices, indices, indices, 0.3)
        gradients = OPS.index_list_backward(out, None, q, q, q, out, lse, weights, *[indices] * 4, 0.3)
    assert out.shape == q.shape
    assert out.stride() == (50 * 3 * 64, 64, 3 * 64, 1)
    assert lse.shape == (2, 3, 50)
    assert weights.shape == (2, 3, 50, 4)
    assert [gradient.shape for gradient in gradients] == [q.shape] * 3


@pytest.mark.parametrize("per_head", [False, True])
def test_flops_are_those_of_attended_pairs(per_head: bool) -> None:
    layout = awkward_layout(
        "scattered empty slots", num_tokens=9, num_slots=4, heads=2 if per_head else None, device=DEVICE
    )
    q, k, v = leaves()
    with FlopCounterMode(display=False) as counter:
        attend(q, k, v, layout).sum().backward()
    pairs = int((layout.indices >= 0).sum()) * (1 if per_head else 2)
    assert counter.get_total_flops() == 2 * 8 * pairs * (2 + 4)
