"""The block sparse operators as torch sees them: opcheck, compile, checkpoints, autocast, fake tensors, FLOPs."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from sparse_attention import IMPLEMENTATIONS, BlockSparse, sparse_attention, sparse_self_attention, why_not
from sparse_attention.ops import block_sparse_attention, fused_block_sparse_attention
from sparse_attention.testing import as_fused_projection, random_inputs
from sparse_attention.triton import why_not as why_not_triton
from tests.sparse_attention.block_layouts import block_layout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPS = torch.ops.sparse_attention
COMPILER = "inductor" if DEVICE == "cuda" else "aot_eager"
LAYOUT = block_layout(num_tokens=20, device=DEVICE, seed=1)
LAYOUT.build()
ROWS = (LAYOUT.mask_words, LAYOUT.lists.blocks, LAYOUT.lists.masks, LAYOUT.work.items, LAYOUT.work.splits)
COLUMNS = (
    LAYOUT.transposed_mask_words, LAYOUT.transposed.blocks, LAYOUT.transposed.masks,
    LAYOUT.transposed_work.items, LAYOUT.transposed_work.splits,
)  # fmt: skip
REST = (False, 0.3)


def leaves(length: int = 20, fused: bool = False, seed: int = 0) -> list[Tensor]:
    inputs = random_inputs(num_tokens=length, head_dim=8, device=DEVICE, seed=seed)
    inputs = as_fused_projection(inputs) if fused else inputs
    return [tensor.detach().requires_grad_() for tensor in (inputs.q, inputs.k, inputs.v)]


def fused_leaf(length: int = 20) -> Tensor:
    return torch.stack(leaves(length)).permute(1, 3, 0, 2, 4).detach().contiguous().requires_grad_()


def attend(q: Tensor, k: Tensor, v: Tensor, layout: BlockSparse = LAYOUT) -> Tensor:
    return block_sparse_attention(q, k, v, layout, 0.3)[0]


@pytest.fixture
def triton_takes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = replace(IMPLEMENTATIONS["triton"], why_not=lambda q, k, v, layout: None)
    monkeypatch.setitem(IMPLEMENTATIONS, "triton", taken)


@pytest.mark.parametrize("fused", [False, True])
def test_forward_passes_opcheck(fused: bool) -> None:
    torch.library.opcheck(OPS.block_sparse_forward.default, (*leaves(fused=fused), *ROWS, *COLUMNS, *REST))


def test_backward_passes_opcheck() -> None:
    q, k, v = (tensor.detach() for tensor in leaves(fused=True))
    results = OPS.block_sparse_forward(q, k, v, *ROWS, *COLUMNS, *REST)
    arguments = (torch.randn_like(results[0]), None, q, k, v, *results, *ROWS, *COLUMNS, *REST)
    torch.library.opcheck(OPS.block_sparse_backward.default, arguments)


def test_fused_operators_pass_opcheck() -> None:
    qkv = fused_leaf()
    torch.library.opcheck(OPS.fused_block_sparse_forward.default, (qkv, *ROWS, *COLUMNS, *REST))
    results = OPS.fused_block_sparse_forward(qkv.detach(), *ROWS, *COLUMNS, *REST)
    arguments = (torch.randn_like(results[0]), None, qkv.detach(), *results, *ROWS, *COLUMNS, *REST)
    torch.library.opcheck(OPS.fused_block_sparse_backward.default, arguments)


def test_the_fused_gradient_is_one_contiguous_tensor() -> None:
    qkv = fused_leaf()
    (gradient,) = torch.autograd.grad(fused_block_sparse_attention(qkv, LAYOUT, 0.3)[0].sum(), qkv)
    assert gradient.shape == qkv.shape
    assert gradient.is_contiguous()


@pytest.mark.usefixtures("triton_takes_all")
def test_the_public_call_compiles_without_graph_breaks_and_not_again_for_a_new_length() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(COMPILER)
    compiled = torch.compile(lambda x, layout: sparse_self_attention(x, layout) * 2, fullgraph=True, backend=counter)
    for length in (20, 35, 50, 70):
        layout = block_layout(num_tokens=length, device=DEVICE, seed=length)
        layout.build()
        qkv = torch.randn(1, length, 3, 2, 8, device=DEVICE, requires_grad=True)
        (gradient,) = torch.autograd.grad(compiled(qkv, layout).sum(), qkv)
        (expected,) = torch.autograd.grad(sparse_self_attention(qkv, layout).sum() * 2, qkv)
        torch.testing.assert_close(gradient, expected)
    # Once for the first length, once more when the length turns out to vary.
    assert counter.frame_count == 2


def test_compiles_with_the_layout_as_a_constant() -> None:
    torch._dynamo.reset()
    q, k, v = leaves()
    compiled = torch.compile(attend, fullgraph=True, backend=COMPILER)
    torch.testing.assert_close(compiled(q, k, v), attend(q, k, v))


def test_compiling_before_the_lists_are_built_says_what_to_do() -> None:
    torch._dynamo.reset()
    layout = block_layout(num_tokens=20, device=DEVICE)
    compiled = torch.compile(lambda q, k, v: attend(q, k, v, layout), backend=COMPILER, fullgraph=True)
    with pytest.raises(Exception, match=r"call pattern.build\(\) before"):
        compiled(*leaves())


@pytest.mark.usefixtures("triton_takes_all")
def test_the_public_call_takes_fused_and_separate_inputs_alike() -> None:
    qkv = fused_leaf()
    fused = sparse_self_attention(qkv, LAYOUT)
    q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
    parts = sparse_attention(q, k, v, LAYOUT)
    torch.testing.assert_close(fused, parts)
    torch.testing.assert_close(fused, sparse_self_attention(qkv, LAYOUT, implementation="reference"))


def test_plain_checkpointing_gives_the_same_gradients() -> None:
    q, k, v = leaves()
    gradients = torch.autograd.grad(checkpoint(attend, q, k, v, use_reentrant=False).sum(), (q, k, v))
    torch.testing.assert_close(gradients, torch.autograd.grad(attend(q, k, v).sum(), (q, k, v)))


def test_a_gradient_that_reaches_lse_alone() -> None:
    q, k, v = leaves()
    lse = block_sparse_attention(q, k, v, LAYOUT, 0.3)[1]
    seen = lse != -torch.inf
    dq, dk, dv = torch.autograd.grad(lse[seen].sum(), (q, k, v))
    score = (q @ k.mT * 0.3).masked_fill(~LAYOUT.dense_mask().to(DEVICE), -torch.inf)
    expected = torch.autograd.grad(score.logsumexp(dim=-1)[seen].sum(), (q, k))
    torch.testing.assert_close((dq, dk), expected)
    assert not dv.any()


def test_without_gradients_no_transposed_lists_are_built() -> None:
    layout = block_layout(num_tokens=20, device=DEVICE)
    with torch.no_grad():
        attend(*leaves(), layout=layout)
    assert layout.is_built(transposed=False)
    assert not layout.is_built(transposed=True)


def test_autocast_casts_a_fused_projection() -> None:
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        out, lse = fused_block_sparse_attention(fused_leaf(), LAYOUT, 0.3)
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_shapes_without_data(device: str) -> None:
    with FakeTensorMode():
        q = torch.empty(2, 3, 50, 64, dtype=torch.bfloat16, device=device)
        k = torch.empty(2, 3, 70, 64, dtype=torch.bfloat16, device=device)
        words, entries = torch.empty(5, 16, 1, dtype=torch.int32), torch.empty(9, dtype=torch.int32)
        items, splits = torch.empty(4, 4, dtype=torch.int32), torch.empty(0, 3, dtype=torch.int32)
        lists = [words, entries, entries, items, splits]
        with FlopCounterMode(display=False) as counter:
            out, lse = OPS.block_sparse_forward(q, k, k, *lists, *lists, *REST)
            gradients = OPS.block_sparse_backward(out, None, q, k, k, out, lse, *lists, *lists, *REST)
    assert out.shape == q.shape
    assert out.stride() == (50 * 3 * 64, 64, 3 * 64, 1)
    assert lse.shape == (2, 3, 50)
    assert [gradient.shape for gradient in gradients] == [q.shape, k.shape, k.shape]
    # Without data every pair of the nine blocks counts.
    assert counter.get_total_flops() == 2 * 64 * (9 * 16 * 16) * 2 * 3 * (2 + 5)


@pytest.mark.parametrize("heads", [None, 2])
def test_flops_are_those_of_attended_pairs(heads: int | None) -> None:
    layout = block_layout(num_tokens=43, heads=heads, device=DEVICE, seed=2)
    q, k, v = leaves(43)
    with FlopCounterMode(display=False) as counter:
        attend(q, k, v, layout).sum().backward()
    pairs = int(layout.dense_mask().sum()) * (1 if heads else 2)
    assert counter.get_total_flops() == 2 * 8 * pairs * (2 + 5)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "reason"),
    [
        (torch.bfloat16, 512, None),
        (torch.bfloat16, 520, "head_dim 520 is more than the 512 of bfloat16 whose sums fit"),
        (torch.float32, 256, None),
        (torch.float32, 264, "head_dim 264 is more than the 256 of float32"),
        (torch.float64, 64, "too coarse for float64"),
    ],
)
def test_heads_that_do_not_fit_are_refused_with_the_reason(
    dtype: torch.dtype, head_dim: int, reason: str | None
) -> None:
    q = torch.empty(1, 1, 20, head_dim, dtype=dtype, device="meta")
    answer = why_not_triton(q, q, q, LAYOUT)
    assert answer is None if reason is None else reason in str(answer)


def test_on_the_cpu_the_reference_is_taken() -> None:
    q = torch.empty(1, 1, 20, 8)
    layout = LAYOUT.to("cpu")
    assert why_not("triton", q, q, q, layout) == "it needs a GPU, and q is on the CPU"
    assert why_not("reference", q, q, q, layout) is None
