"""The block sparse kernels against float64: in Triton's interpreter where there is no GPU, larger on one.

The bound is what eager torch in the same dtype loses. Memory that torch hands out is full of NaN in every test.
"""

import zlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_attention import BlockSparse
from sparse_attention.layouts import block_work
from sparse_attention.ops import block_sparse_attention, fused_block_sparse_attention
from sparse_attention.testing import (
    Inputs,
    Results,
    as_fused_projection,
    assert_as_exact_as_eager,
    random_inputs,
    run,
)
from sparse_attention.triton.block_sparse import launch
from sparse_attention.triton.block_sparse.backward import backward
from sparse_attention.triton.block_sparse.forward import forward
from sparse_attention.triton.block_sparse.launch import Tile, Tiles, rule
from sparse_attention.triton.block_sparse.lists import Lists
from tests.sparse_attention.block_layouts import AWKWARD_BLOCKS, block_layout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [pytest.param(37, id="small"), pytest.param(1031, id="large", marks=pytest.mark.gpu)]

pytestmark = pytest.mark.usefixtures("memory_full_of_nan")


def attend(inputs: Inputs, layout: BlockSparse, scale: float | None = None) -> Results:
    factor = inputs.q.shape[-1] ** -0.5 if scale is None else scale
    return run(lambda q, k, v: block_sparse_attention(q, k, v, layout, factor), inputs)


def check(inputs: Inputs, layout: BlockSparse, scale: float | None = None) -> Results:
    results = attend(inputs, layout, scale)
    assert_as_exact_as_eager(results, inputs, layout, scale=scale)
    return results


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AWKWARD_BLOCKS)
def test_awkward_lists_are_as_exact_as_eager_torch(name: str, size: int) -> None:
    seed = zlib.crc32(f"{name} {size}".encode())
    layout = block_layout(name, num_tokens=size, device=DEVICE, seed=seed)
    check(random_inputs(num_tokens=size, head_dim=16, heads=1, device=DEVICE, seed=seed), layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [8, 80, 96])
def test_every_dtype_and_head_dims_that_are_no_powers_of_two(dtype: torch.dtype, head_dim: int) -> None:
    inputs = random_inputs(num_tokens=33, head_dim=head_dim, heads=1, dtype=dtype, device=DEVICE, seed=head_dim)
    check(inputs, block_layout(num_tokens=33, device=DEVICE, seed=head_dim))


@pytest.mark.parametrize(("dtype", "head_dim"), [(torch.float32, 6), (torch.bfloat16, 20), (torch.float16, 3)])
@pytest.mark.parametrize("fused", [False, True])
def test_heads_whose_rows_begin_anywhere_in_memory(dtype: torch.dtype, head_dim: int, fused: bool) -> None:
    inputs = random_inputs(num_tokens=33, head_dim=head_dim, heads=2, dtype=dtype, device=DEVICE, seed=head_dim)
    check(as_fused_projection(inputs) if fused else inputs, block_layout(num_tokens=33, device=DEVICE, seed=head_dim))


@pytest.mark.parametrize("step", [1, 2])
def test_views_that_begin_anywhere_in_memory_or_skip_elements(step: int) -> None:
    inputs = random_inputs(num_tokens=33, head_dim=16, heads=2, dtype=torch.bfloat16, device=DEVICE, seed=30)
    views = {}
    for name in ("q", "k", "v", "grad_out"):
        x = getattr(inputs, name)
        # Not aligned, and with a step of 2 without a contiguous dim.
        views[name] = x.new_empty((*x.shape[:-1], 16 * step + 1))[..., 1::step].copy_(x)
    check(replace(inputs, **views), block_layout(num_tokens=33, device=DEVICE, seed=31))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [8, 32, 64, 96, 128, 192, 256, 512])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
def test_common_and_wide_heads(block_size: int, head_dim: int, dtype: torch.dtype) -> None:
    if dtype == torch.float32 and head_dim > 256:
        pytest.skip("refused: its sums do not fit")
    inputs = random_inputs(num_tokens=515, head_dim=head_dim, dtype=dtype, device=DEVICE, seed=head_dim)
    check(inputs, block_layout(num_tokens=515, block_size=block_size, device=DEVICE, seed=block_size))


@pytest.mark.parametrize("block_size", [16, 32, 64, 128])
@pytest.mark.parametrize("partial", [0.0, 0.6])
def test_every_block_size(block_size: int, partial: float) -> None:
    inputs = random_inputs(num_tokens=150, head_dim=16, heads=1, device=DEVICE, seed=block_size)
    layout = block_layout(num_tokens=150, block_size=block_size, partial=partial, device=DEVICE, seed=block_size)
    check(inputs, layout)


@pytest.mark.parametrize(("own", "walked"), [(16, 128), (32, 64), (64, 16), (128, 32)])
def test_a_block_in_several_programs_and_several_steps(own: int, walked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = Tile(own, walked, 4, 1)
    monkeypatch.setitem(launch.CURATED, (4, 16, 128), Tiles(tile, tile, tile))
    inputs = random_inputs(num_tokens=150, num_keys=170, head_dim=16, heads=1, device=DEVICE, seed=own)
    check(inputs, block_layout(num_tokens=150, num_keys=170, block_size=128, device=DEVICE, seed=walked))


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_with_lists_for_each_head_and_other_keys_than_queries(size: int) -> None:
    inputs = random_inputs(num_tokens=size, num_keys=size + 9, head_dim=16, heads=2, batch=2, device=DEVICE, seed=2)
    check(inputs, block_layout(num_tokens=size, num_keys=size + 9, heads=2, device=DEVICE, seed=3), scale=0.3)


@pytest.mark.parametrize("scale", [0.0, -0.7])
def test_scales_that_are_not_positive(scale: float) -> None:
    inputs = random_inputs(num_tokens=35, head_dim=8, heads=1, device=DEVICE, seed=4)
    check(inputs, block_layout(num_tokens=35, device=DEVICE), scale)


def test_a_single_token() -> None:
    layout = BlockSparse.from_table(torch.zeros(1, 1, dtype=torch.int64, device=DEVICE), block_size=16, num_tokens=1)
    check(random_inputs(num_tokens=1, head_dim=16, device=DEVICE), layout)


def test_views_into_a_fused_projection() -> None:
    inputs = as_fused_projection(random_inputs(num_tokens=37, head_dim=16, device=DEVICE, seed=5))
    check(inputs, block_layout(num_tokens=37, device=DEVICE, seed=6))


def test_expanded_and_transposed_gradients() -> None:
    inputs = random_inputs(num_tokens=20, head_dim=8, heads=1, device=DEVICE, seed=7)
    inputs = replace(inputs, grad_out=torch.ones((), device=DEVICE).expand_as(inputs.q))
    check(inputs, block_layout(num_tokens=20, device=DEVICE, seed=8))


def test_a_stride_that_nobody_steps_over_may_be_anything() -> None:
    inputs = random_inputs(num_tokens=20, head_dim=8, device=DEVICE, seed=34)
    q = inputs.q.as_strided(inputs.q.shape, (7, *inputs.q.stride()[1:]))
    check(replace(inputs, q=q), block_layout(num_tokens=20, device=DEVICE, seed=35))


def test_k_and_v_with_strides_of_their_own() -> None:
    inputs = random_inputs(num_tokens=20, head_dim=8, device=DEVICE, seed=9)
    k = inputs.k.transpose(1, 2).contiguous().transpose(1, 2)
    check(replace(inputs, k=k, v=inputs.v.mT.contiguous().mT), block_layout(num_tokens=20, device=DEVICE, seed=10))


def test_one_gradient_for_a_fused_projection() -> None:
    inputs = random_inputs(num_tokens=37, head_dim=8, device=DEVICE, seed=11)
    layout = block_layout(num_tokens=37, device=DEVICE, seed=12)
    qkv = torch.stack((inputs.q, inputs.k, inputs.v)).permute(1, 3, 0, 2, 4).contiguous().requires_grad_()
    out, lse = fused_block_sparse_attention(qkv, layout, 8**-0.5)
    (gradient,) = torch.autograd.grad(
        (out, lse), (qkv,), (inputs.grad_out, inputs.grad_lse.masked_fill(lse.isinf(), 0))
    )
    assert_as_exact_as_eager(Results(out, lse, *gradient.permute(2, 0, 3, 1, 4)), inputs, layout)


@pytest.mark.parametrize(("longest", "heads"), [(1, None), (2, 2), (3, None)])
def test_long_rows_are_cut_and_merged(longest: int, heads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_work, "where_to_cut", lambda num_entries, num_rows, block_size: (longest, longest))
    layout = block_layout("global rows and columns", num_tokens=56, heads=heads, device=DEVICE, seed=longest)
    assert layout.work.num_segments > 0
    assert layout.transposed_work.num_segments > 0
    check(random_inputs(num_tokens=56, head_dim=16, device=DEVICE, seed=longest), layout)


@pytest.mark.gpu
@pytest.mark.parametrize("block_size", [16, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_real_global_rows(block_size: int, dtype: torch.dtype) -> None:
    num_blocks = 60
    table = torch.full((num_blocks, num_blocks), -1)
    table[:, 0], table[:, 1], table[:, 2] = torch.arange(num_blocks), 0, num_blocks - 1
    table[1:-1, 1:3][table[1:-1, :1] == table[1:-1, 1:3]] = -1
    table[0] = table[-1] = torch.arange(num_blocks)
    num_tokens = num_blocks * block_size - 5
    layout = BlockSparse.from_table(table, block_size=block_size, num_tokens=num_tokens).to(DEVICE)
    assert layout.work.num_segments > 0
    check(random_inputs(num_tokens=num_tokens, head_dim=64, heads=1, dtype=dtype, device=DEVICE, seed=13), layout)


def test_keys_that_nobody_sees_get_a_gradient_of_exactly_zero() -> None:
    layout = block_layout("unseen columns", num_tokens=70, device=DEVICE, seed=14)
    results = attend(random_inputs(num_tokens=70, head_dim=8, device=DEVICE, seed=15), layout)
    unseen = layout.degrees == 0
    assert unseen.sum() >= 16
    assert not results.dk[:, :, unseen].any()
    assert not results.dv[:, :, unseen].any()


def test_blocks_that_nobody_sees_may_hold_nan() -> None:
    layout = block_layout("unseen columns", num_tokens=70, device=DEVICE, seed=16)
    inputs = random_inputs(num_tokens=70, head_dim=8, device=DEVICE, seed=17)
    inputs.k[:, :, 16:32] = inputs.v[:, :, 16:32] = torch.nan
    assert all(result.isfinite().all() for name, result in vars(attend(inputs, layout)).items() if name != "lse")


def test_nan_in_the_gradient_of_an_infinite_lse_goes_nowhere() -> None:
    layout = block_layout("all blocks", num_tokens=40, partial=1.0, device=DEVICE, seed=18)
    layout = BlockSparse(
        layout.lists.row_of_entry, layout.lists.blocks, layout.lists.masks.clamp(max=1), layout.mask_words,
        block_size=16, num_tokens=40,
    )  # fmt: skip
    inputs = random_inputs(num_tokens=40, head_dim=8, heads=1, device=DEVICE, seed=19)
    leaves = inputs.leaves()
    out, lse = block_sparse_attention(*leaves, layout, 0.3)
    assert (lse == -torch.inf).any()
    d_lse = inputs.grad_lse.masked_fill(lse == -torch.inf, torch.nan)
    gradients = torch.autograd.grad((out, lse), leaves, (inputs.grad_out, d_lse))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_nothing_outside_the_outputs_is_written() -> None:
    q, k, v, d_out, _ = vars(random_inputs(num_tokens=37, head_dim=8, device=DEVICE, seed=20)).values()
    layout, tiles = block_layout(num_tokens=37, device=DEVICE, seed=21), rule(4, 16, 16)
    lists, work = layout.lists, layout.work
    rows = Lists(layout.mask_words, lists.blocks, lists.masks, work.items, work.splits, per_head=False)
    lists, work = layout.transposed, layout.transposed_work
    columns = Lists(layout.transposed_mask_words, lists.blocks, lists.masks, work.items, work.splits, per_head=False)
    room = torch.full((3, 1, 2, 3 * 37, 16), 7.0, device=DEVICE)
    dq, dk, dv = room[..., 37:74, 4:12]
    out, lse = forward(q, k, v, rows, 0.5, tiles.forward)
    backward(d_out, None, q, k, v, out, lse, rows, columns, 0.5, tiles, (dq, dk, dv))
    inside = torch.zeros_like(room, dtype=torch.bool)
    inside[..., 37:74, 4:12] = True
    assert (room[~inside] == 7).all()
    assert not (room[inside] == 7).any()


@pytest.mark.parametrize("size", SIZES)
def test_ten_runs_are_bitwise_equal(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_work, "where_to_cut", lambda num_entries, num_rows, block_size: (2, 2))
    inputs = random_inputs(num_tokens=size, head_dim=16, heads=1, device=DEVICE, seed=22)
    layout = block_layout("global rows and columns", num_tokens=size, device=DEVICE, seed=23)
    first = attend(inputs, layout)
    for _ in range(9):
        again = attend(inputs, layout)
        for name in Results.__dataclass_fields__:
            assert torch.equal(getattr(first, name), getattr(again, name)), name


@settings(max_examples=6 if DEVICE == "cpu" else 40, deadline=None, derandomize=False)
@given(data=st.data())
def test_any_shapes_and_lists(data: st.DataObject) -> None:
    num_tokens, num_keys = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    head_dim, heads = data.draw(st.sampled_from([8, 9, 24])), data.draw(st.sampled_from([None, 2]))
    seed, name = data.draw(st.integers(0, 2**31)), data.draw(st.sampled_from(sorted(AWKWARD_BLOCKS)))
    inputs = random_inputs(num_tokens=num_tokens, num_keys=num_keys, head_dim=head_dim, device=DEVICE, seed=seed)
    layout = block_layout(
        name, num_tokens=num_tokens, num_keys=num_keys, heads=heads, partial=data.draw(st.floats(0, 1)),
        device=DEVICE, seed=seed, block_size=data.draw(st.sampled_from([16, 32])),
    )  # fmt: skip
    check(inputs, layout)


@pytest.mark.gpu
def test_the_last_rows_are_right_past_two_to_the_31_elements() -> None:
    num_tokens, heads, head_dim, size = 5_000_000, 12, 64, 64
    qkv = torch.empty(1, num_tokens, 3, heads, head_dim, dtype=torch.bfloat16, device=DEVICE)
    qkv[:, :-size] = 0.5
    tail = torch.randn(1, size, 3, heads, head_dim, device=DEVICE).to(torch.bfloat16)
    qkv[:, -size:] = tail
    last = torch.tensor([num_tokens // size - 1], device=DEVICE)
    layout = BlockSparse(last, last, block_size=size, num_tokens=num_tokens)
    q, k, v = (x.requires_grad_() for x in qkv.permute(2, 0, 3, 1, 4))
    out, _ = block_sparse_attention(q, k, v, layout, 0.125)
    gradients = torch.autograd.grad(out, (q, k, v), out.detach())
    small = BlockSparse(0 * last, 0 * last, block_size=size, num_tokens=size)
    q, k, v = leaves = [x.requires_grad_() for x in tail.permute(2, 0, 3, 1, 4)]
    want, _ = block_sparse_attention(q, k, v, small, 0.125)
    for ours, expected in zip(
        (out, *gradients), (want, *torch.autograd.grad(want, leaves, want.detach())), strict=True
    ):
        assert torch.equal(ours[:, :, -size:], expected)
        assert not ours[:, :, :-size].any()
