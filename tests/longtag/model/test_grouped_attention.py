"""Attention by groups of heads against the same written out in plain torch."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtag.memory.live_bytes import LiveBytes
from longtag.model import grouped_attention
from longtag.model.grouped_attention import Groups, Projections, attention_by_groups
from longtag.model.rotary import Rotation, rotation
from sparse_attention import patterns, sparse_self_attention

BATCH, TOKENS, HEADS, HEAD_DIM = 2, 23, 5, 8
WIDTH = HEADS * HEAD_DIM


def projections(dtype: torch.dtype = torch.float64) -> Projections:
    shapes = ((3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,))
    return Projections(*(torch.randn(shape, dtype=dtype).div(4).requires_grad_() for shape in shapes))


def groups(group: int, num_tokens: int = TOKENS, norm: nn.LayerNorm | None = None, turn: Rotation | None = None):
    layout = patterns.window(num_tokens, window=2, layout="index_list")
    return Groups(
        layout=layout,
        group=group,
        num_heads=HEADS,
        attend=partial(sparse_self_attention, implementation="reference"),
        rotation=turn,
        norm=norm,
        tile=7,
    )


def plain(x: Tensor, weights: Projections, norm: nn.LayerNorm | None, turn: Rotation | None) -> Tensor:
    """With a mask over all pairs, and all heads at once."""
    y = x if norm is None else norm(x)
    qkv = F.linear(y, weights.qkv_weight, weights.qkv_bias).unflatten(-1, (3, HEADS, HEAD_DIM))
    if turn is not None:
        swapped = qkv[:, :, :2].roll(HEAD_DIM // 2, -1)
        qkv = torch.cat((qkv[:, :, :2] * turn.cos + swapped * turn.sin, qkv[:, :, 2:]), 2)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    place = torch.arange(x.shape[1])
    mask = (place[:, None] - place).abs() <= 2
    heads = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return F.linear(heads.transpose(1, 2).flatten(2), weights.out_weight, weights.out_bias)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("group", [1, 2, 5])
@pytest.mark.parametrize("small", [0, 2**27], ids=["group by group", "two groups at once"])
def test_values_and_gradients_are_those_of_all_heads_at_once(small, group, normed, turned, monkeypatch):
    monkeypatch.setattr(grouped_attention, "SMALL", small)
    weights = projections()
    norm = nn.LayerNorm(WIDTH, dtype=torch.float64) if normed else None
    turn = Rotation(*(part.double() for part in rotation(TOKENS, HEAD_DIM, torch.device("cpu")))) if turned else None
    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    leaves = [x, *weights, *([] if norm is None else norm.parameters())]
    out, same = attention_by_groups(x, weights, groups(group, norm=norm, turn=turn))
    expected = plain(x, weights, norm, turn)
    torch.testing.assert_close(out, expected)
    # x is read by something else as well.
    d_out, d_same = torch.randn_like(out), torch.randn_like(x)
    found = torch.autograd.grad((out, same), leaves, (d_out, d_same.clone()))
    for ours, theirs in zip(found, torch.autograd.grad((expected, x), leaves, (d_out, d_same)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_gradient_that_both_results_share_is_not_written_to():
    weights = projections()
    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    out, same = attention_by_groups(x, weights, groups(2))
    shared = torch.randn_like(x)
    before = shared.clone()
    (found,) = torch.autograd.grad((out, same), x, (shared, shared))
    assert torch.equal(shared, before)
    (expected,) = torch.autograd.grad((plain(x, weights, None, None), x), x, (shared, shared))
    torch.testing.assert_close(found, expected)


def test_a_reader_that_is_not_read_leaves_the_gradient_to_the_other():
    weights = projections()
    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    (of_result,) = torch.autograd.grad(attention_by_groups(x, weights, groups(2))[0].sum(), x)
    (expected,) = torch.autograd.grad(plain(x, weights, None, None).sum(), x)
    torch.testing.assert_close(of_result, expected)
    attention_by_groups(x, weights, groups(2))[1].sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))  # pyright: ignore[reportArgumentType]
    assert weights.out_bias.grad is None


def test_a_frozen_weight_has_no_gradient():
    weights = projections()
    weights.qkv_weight.requires_grad_(False)
    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    attention_by_groups(x, weights, groups(2))[0].sum().backward()
    assert weights.qkv_weight.grad is None
    assert x.grad is not None


def test_a_frozen_norm_passes_the_gradient_on():
    weights, norm = projections(), nn.LayerNorm(WIDTH, dtype=torch.float64).requires_grad_(False)
    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    attention_by_groups(x, weights, groups(2, norm=norm))[0].sum().backward()
    assert norm.weight.grad is None
    (expected,) = torch.autograd.grad(plain(x, weights, norm, None).sum(), x)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_it_multiplies_in_few_bits_and_gives_gradients_in_the_dtype_of_each(dtype):
    weights = projections(torch.float32)
    norm = nn.LayerNorm(WIDTH)
    x = torch.randn(BATCH, TOKENS, WIDTH).to(dtype).requires_grad_()
    leaves = [x, *weights, *norm.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, _ = attention_by_groups(x, weights, groups(2, norm=norm))
    assert out.dtype == torch.bfloat16
    d_out = torch.randn_like(out)
    found = torch.autograd.grad(out, leaves, d_out)
    assert [gradient.dtype for gradient in found] == [leaf.dtype for leaf in leaves]
    exact = plain(x.float(), weights, norm, None)
    assert (out.float() - exact).norm() < 0.02 * exact.norm()
    for ours, theirs in zip(found, torch.autograd.grad(exact, leaves, d_out.float()), strict=True):
        assert (ours.float() - theirs.float()).norm() < 0.02 * theirs.float().norm()


def test_it_keeps_x_alone_and_holds_q_k_and_v_of_one_group():
    tokens = 4000
    weights = projections(torch.float32)
    x = torch.randn(1, tokens, WIDTH, requires_grad=True)

    def run(group: int) -> tuple[int, int]:
        with LiveBytes() as live:
            out, _ = attention_by_groups(x, weights, groups(group, tokens))
            kept = live.now - out.nbytes
            live.peak = 0
            out.backward(torch.ones_like(out))
        return kept, live.peak

    (kept, peak), (_, peak_at_once) = run(1), run(5)
    assert kept < 0.3 * x.nbytes  # lists, and nothing of the model's width
    # Of q, k, v and their gradients four fifths are not there, 4.8 times x.
    assert peak_at_once - peak > 4 * x.nbytes
