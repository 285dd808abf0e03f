"""The kernels of the index list against float64: in Triton's interpreter where there is no GPU, larger on one.

The bound is what eager torch in the same dtype loses. Memory that torch hands out is full of NaN in every test.
"""

import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_attention import IndexList
from sparse_attention.ops import fused_index_list_attention, index_list_attention
from sparse_attention.testing import (
    AWKWARD_TABLES,
    Inputs,
    Results,
    as_fused_projection,
    assert_as_exact_as_eager,
    awkward_layout,
    random_inputs,
    run,
)
from sparse_attention.triton.index_list import backward as backward_module
from sparse_attention.triton.index_list import by_key
from sparse_attention.triton.index_list.backward import backward
from sparse_attention.triton.index_list.forward import forward
from sparse_attention.triton.index_list.launch import keeps_weights, rule

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LARGE = 1031
SIZES = [pytest.param(19, id="small"), pytest.param(LARGE, id="large", marks=pytest.mark.gpu)]

pytestmark = pytest.mark.usefixtures("memory_full_of_nan")


def attend(inputs: Inputs, layout: IndexList, scale: float | None = None) -> Results:
    factor = inputs.q.shape[-1] ** -0.5 if scale is None else scale
    return run(lambda q, k, v: index_list_attention(q, k, v, layout, factor), inputs)


def check(inputs: Inputs, layout: IndexList, scale: float | None = None) -> Results:
    results = attend(inputs, layout, scale)
    assert_as_exact_as_eager(results, inputs, layout, scale=scale)
    return results


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", AWKWARD_TABLES)
def test_awkward_lists_are_as_exact_as_eager_torch(name: str, size: int) -> None:
    seed = zlib.crc32(f"{name} {size}".encode())
    layout = awkward_layout(name, num_tokens=size, num_slots=5, device=DEVICE, seed=seed)
    check(random_inputs(num_tokens=size, head_dim=16, device=DEVICE, seed=seed), layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [8, 80, 160])
def test_every_dtype_and_head_dims_that_are_no_powers_of_two(dtype: torch.dtype, head_dim: int) -> None:
    inputs = random_inputs(num_tokens=13, head_dim=head_dim, heads=1, dtype=dtype, device=DEVICE, seed=head_dim)
    check(inputs, awkward_layout("scattered empty slots", num_tokens=13, num_slots=4, device=DEVICE, seed=head_dim))


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [64, 96, 128, 192, 768, 1024])
def test_common_and_wide_heads(head_dim: int) -> None:
    inputs = random_inputs(num_tokens=LARGE, head_dim=head_dim, dtype=torch.bfloat16, device=DEVICE, seed=head_dim)
    check(inputs, awkward_layout("scattered empty slots", num_tokens=LARGE, num_slots=8, device=DEVICE, seed=1))


@pytest.mark.parametrize(
    ("num_slots", "head_dim"),
    [
        (1, 16),
        (9, 16),
        (9, 40),
        (33, 8),
        (12, 136),
        (70, 136),
        *(pytest.param(n, 64, marks=pytest.mark.gpu) for n in (64, 1000, 4096)),
    ],
)
def test_lists_of_any_length(num_slots: int, head_dim: int) -> None:
    inputs = random_inputs(num_tokens=11, head_dim=head_dim, heads=1, device=DEVICE, seed=num_slots)
    layout = awkward_layout("leading empty slots", num_tokens=11, num_slots=num_slots, device=DEVICE, seed=num_slots)
    check(inputs, layout)


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_with_a_pattern_for_each_head_and_other_keys_than_queries(size: int) -> None:
    inputs = random_inputs(num_tokens=size, num_keys=size + 4, head_dim=16, heads=3, batch=2, device=DEVICE, seed=2)
    layout = awkward_layout(
        "scattered empty slots", num_tokens=size, num_keys=size + 4, num_slots=3, heads=3, device=DEVICE, seed=3
    )
    check(inputs, layout, scale=0.3)


def test_a_single_token() -> None:
    layout = IndexList(torch.zeros(1, 1, dtype=torch.int64, device=DEVICE))
    check(random_inputs(num_tokens=1, head_dim=16, device=DEVICE), layout)


@pytest.mark.parametrize("size", SIZES)
def test_views_into_a_fused_projection(size: int) -> None:
    inputs = as_fused_projection(random_inputs(num_tokens=size, head_dim=16, device=DEVICE, seed=4))
    check(inputs, awkward_layout("drawn at random", num_tokens=size, num_slots=4, device=DEVICE, seed=5))


def test_expanded_and_transposed_gradients() -> None:
    inputs = random_inputs(num_tokens=9, head_dim=8, device=DEVICE, seed=6)
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=4, device=DEVICE, seed=7)
    inputs = Inputs(inputs.q, inputs.k, inputs.v, torch.ones((), device=DEVICE).expand_as(inputs.q), inputs.grad_lse)
    check(inputs, layout)


def test_k_and_v_with_strides_of_their_own() -> None:
    inputs = random_inputs(num_tokens=9, head_dim=8, device=DEVICE, seed=8)
    k = inputs.k.transpose(1, 2).contiguous().transpose(1, 2)
    layout = awkward_layout("drawn at random", num_tokens=9, num_slots=4, device=DEVICE, seed=9)
    check(Inputs(inputs.q, k, inputs.v, inputs.grad_out, inputs.grad_lse), layout)


def test_one_gradient_for_a_fused_projection() -> None:
    inputs = random_inputs(num_tokens=9, head_dim=8, device=DEVICE, seed=10)
    layout = awkward_layout("scattered empty slots", num_tokens=9, num_slots=4, device=DEVICE, seed=11)
    qkv = torch.stack((inputs.q, inputs.k, inputs.v)).permute(1, 3, 0, 2, 4).contiguous().requires_grad_()
    out, lse = fused_index_list_attention(qkv, layout, 8**-0.5)
    (gradient,) = torch.autograd.grad(
        (out, lse), (qkv,), (inputs.grad_out, inputs.grad_lse.masked_fill(lse.isinf(), 0))
    )
    assert_as_exact_as_eager(Results(out, lse, *gradient.permute(2, 0, 3, 1, 4)), inputs, layout)


@pytest.mark.parametrize("name", ["a hub", "duplicates", "scattered empty slots"])
@pytest.mark.parametrize("num_keys", [2, 40])
@pytest.mark.parametrize("long", [8, 16])
def test_long_lists_are_cut_and_added_up(name: str, num_keys: int, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_key, "long_list", lambda num_edges, num_keys: long)
    inputs = random_inputs(num_tokens=40, num_keys=num_keys, head_dim=8, heads=1, device=DEVICE, seed=long)
    check(inputs, awkward_layout(name, num_tokens=40, num_keys=num_keys, num_slots=4, device=DEVICE, seed=long))


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [64, 192])
def test_real_hubs(head_dim: int) -> None:
    inputs = random_inputs(num_tokens=3001, head_dim=head_dim, heads=1, dtype=torch.bfloat16, device=DEVICE, seed=12)
    check(inputs, awkward_layout("a hub", num_tokens=3001, num_slots=8, device=DEVICE, seed=13))


def test_heads_go_in_groups_when_scratch_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward_module, "SCRATCH_BYTES", 2 * 8 * 9 * 4)
    inputs = random_inputs(num_tokens=9, head_dim=8, heads=3, batch=2, device=DEVICE, seed=14)
    check(inputs, awkward_layout("drawn at random", num_tokens=9, num_slots=4, heads=3, device=DEVICE, seed=15))


def test_keys_that_nobody_sees_get_a_gradient_of_exactly_zero() -> None:
    inputs = random_inputs(num_tokens=12, head_dim=8, device=DEVICE, seed=16)
    results = attend(inputs, awkward_layout("unseen keys", num_tokens=12, num_slots=3, device=DEVICE, seed=17))
    assert not results.dk[:, :, 6:].any()
    assert not results.dv[:, :, 6:].any()


def test_keys_that_nobody_sees_may_hold_nan() -> None:
    inputs = random_inputs(num_tokens=12, head_dim=8, device=DEVICE, seed=18)
    layout = awkward_layout("unseen keys", num_tokens=12, num_slots=3, device=DEVICE, seed=19)
    layout = IndexList(torch.where(layout.indices == 0, -1, layout.indices))
    for tensor in (inputs.k, inputs.v):
        tensor[:, :, 0] = torch.nan
        tensor[:, :, 6:] = torch.nan
    results = attend(inputs, layout)
    assert all(getattr(results, name).isfinite().all() for name in ("out", "dq", "dk", "dv"))


def test_nothing_outside_the_outputs_is_written() -> None:
    q, k, v, d_out, _ = vars(random_inputs(num_tokens=9, head_dim=8, device=DEVICE, seed=20)).values()
    layout = awkward_layout("scattered empty slots", num_tokens=9, num_slots=4, device=DEVICE, seed=21)
    lists, tiles = layout.transposed, rule(4, 8, 4)
    room = torch.full((3, 1, 2, 3 * 9, 12), 7.0, device=DEVICE)
    dq, dk, dv = room[..., 9:18, 2:10]
    weights = torch.empty(1, 2, 9, 4, device=DEVICE) if keeps_weights(8, 4, q.dtype) else None
    out, lse = forward(q, k, v, layout.indices, 0.5, tiles, weights)
    sorted_lists = (lists.offsets, lists.edges, lists.order)
    backward(d_out, None, q, k, v, out, lse, weights, layout.indices, sorted_lists, 0.5, tiles, (dq, dk, dv))
    inside = torch.zeros_like(room, dtype=torch.bool)
    inside[..., 9:18, 2:10] = True
    assert (room[~inside] == 7).all()
    assert not (room[inside] == 7).any()


@pytest.mark.parametrize("size", SIZES)
def test_ten_runs_are_bitwise_equal(size: int) -> None:
    inputs = random_inputs(num_tokens=size, head_dim=16, heads=1, device=DEVICE, seed=22)
    layout = awkward_layout("a hub", num_tokens=size, num_slots=4, device=DEVICE, seed=23)
    first = attend(inputs, layout)
    for _ in range(9):
        again = attend(inputs, layout)
        for name in Results.__dataclass_fields__:
            assert torch.equal(getattr(first, name), getattr(again, name)), name


@settings(max_examples=8 if DEVICE == "cpu" else 40, deadline=None, derandomize=False)
@given(data=st.data())
def test_any_shapes_and_lists(data: st.DataObject) -> None:
    num_tokens, num_keys, num_slots = (data.draw(st.integers(1, most)) for most in (9, 9, 6))
    head_dim, heads = data.draw(st.sampled_from([8, 9, 24])), data.draw(st.integers(1, 2))
    entries = st.lists(st.integers(-1, num_keys - 1), min_size=num_slots, max_size=num_slots)
    table = data.draw(st.lists(entries, min_size=num_tokens, max_size=num_tokens))
    seed = data.draw(st.integers(0, 2**31))
    inputs = random_inputs(
        num_tokens=num_tokens, num_keys=num_keys, head_dim=head_dim, heads=heads, device=DEVICE, seed=seed
    )
    check(inputs, IndexList(torch.tensor(table, device=DEVICE), num_keys))


@pytest.mark.gpu
def test_the_last_rows_are_right_past_two_to_the_31_elements() -> None:
    num_tokens, heads, head_dim = 5_000_000, 12, 64
    qkv = torch.empty(1, num_tokens, 3, heads, head_dim, dtype=torch.bfloat16, device=DEVICE)
    qkv[:, :-64] = 0.5
    tail = torch.randn(1, 64, 3, heads, head_dim, device=DEVICE).to(torch.bfloat16)
    qkv[:, -64:] = tail
    indices = torch.full((num_tokens, 4), -1, dtype=torch.int32, device=DEVICE)
    near = torch.randint(64, (64, 4), dtype=torch.int32, device=DEVICE)
    indices[-64:] = near + num_tokens - 64
    layout = IndexList(indices)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    out, _ = index_list_attention(q, k, v, layout, 0.125)
    q, k, v = tail.permute(2, 0, 3, 1, 4)
    want, _ = index_list_attention(q, k, v, IndexList(near, 64), 0.125)
    assert torch.equal(out[:, :, -64:], want)
    assert not out[:, :, :-64].any()
