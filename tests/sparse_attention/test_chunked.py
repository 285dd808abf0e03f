"""Dense attention in chunks: exact whatever the chunks are, in torch's own contexts, and in the memory it promises."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from benchmarks.dense_memory import call_of, overhead_bytes, standard
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from longtag.data import TokenIds
from longtag.model import TokenClassifier
from sparse_attention import Dense, sparse_attention
from sparse_attention.chunked import chunked_attention
from sparse_attention.testing import (
    Attention,
    Results,
    as_fused_projection,
    assert_as_exact_as_eager,
    random_inputs,
    run,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CPU = torch.device("cpu")
OPS = torch.ops.sparse_attention
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
CASES = {  # queries, keys, causal; queries and keys in a chunk
    "uneven chunks": ((37, 37, False), (7, 5)),
    "causal, uneven chunks": ((37, 37, True), (7, 5)),
    "causal, short chunks of long rows": ((37, 37, True), (5, 16)),
    "causal, one query at a time": ((19, 19, True), (1, 60)),
    "few queries": ((5, 60, False), (7, 16)),
    "few keys": ((60, 5, False), (16, 3)),
    "one query, one key": ((1, 1, True), (7, 5)),
    "a single chunk": ((37, 37, True), (1024, 4096)),
}


def in_chunks(query_chunk: int, key_chunk: int, causal: bool = False, scale: float | None = None) -> Attention:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        return chunked_attention(q, k, v, factor, causal, query_chunk=query_chunk, key_chunk=key_chunk)

    return attention


def through_the_api(layout: Dense, scale: float | None = None) -> Attention:
    return partial(sparse_attention, pattern=layout, scale=scale, implementation="chunked", return_lse=True)


def assert_same(ours: Results, theirs: Results) -> None:
    for name in ("out", "lse", "dq", "dk", "dv"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_it_is_as_exact_as_eager_torch(case: str, dtype: torch.dtype) -> None:
    (num_tokens, num_keys, causal), chunks = CASES[case]
    inputs = random_inputs(
        num_tokens=num_tokens, num_keys=num_keys, head_dim=12, heads=3, batch=2, dtype=dtype, device=DEVICE
    )
    results = run(in_chunks(*chunks, causal), inputs)
    assert_as_exact_as_eager(results, inputs, Dense(num_tokens, num_keys, causal=causal))


@pytest.mark.parametrize("causal", [False, True])
def test_more_tokens_than_the_default_chunks_hold(causal: bool) -> None:
    inputs = random_inputs(num_tokens=4101, head_dim=8, heads=1, seed=1)
    q, k, v = inputs.leaves()
    expected = scaled_dot_product_attention(q, k, v, is_causal=causal)
    theirs = torch.autograd.grad(expected, (q, k, v), inputs.grad_out)
    out = sparse_attention(q, k, v, Dense(4101, causal=causal), implementation="chunked")
    ours = torch.autograd.grad(out, (q, k, v), inputs.grad_out)
    torch.testing.assert_close((out, *ours), (expected, *theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_agree_with_finite_differences(causal: bool) -> None:
    leaves = random_inputs(num_tokens=7, head_dim=3, dtype=torch.float64).leaves()
    assert torch.autograd.gradcheck(in_chunks(3, 2, causal, scale=0.7), leaves)


@pytest.mark.parametrize("scale", [0.3, -2.0, 0.0])
def test_any_scale(scale: float) -> None:
    inputs = random_inputs(num_tokens=19, head_dim=5)
    layout = Dense(19)
    results = run(through_the_api(layout, scale), inputs)
    assert_as_exact_as_eager(results, inputs, layout, scale=scale)


def test_scores_too_large_for_exp_are_safe_in_whatever_order_they_come() -> None:
    inputs = random_inputs(num_tokens=23, head_dim=4, dtype=torch.float64)
    results = run(in_chunks(4, 3, scale=1e4), inputs)
    assert results.lse.abs().max() > 1e4
    assert_as_exact_as_eager(results, inputs, Dense(23), scale=1e4)


def test_the_chunks_of_heads_that_are_taken_together_do_not_mix() -> None:
    inputs = random_inputs(num_tokens=6, head_dim=4, heads=5, batch=2)
    together = run(in_chunks(8, 24), inputs)
    for head in range(5):
        q, k, v, d_out, d_lse = (
            x[:, head : head + 1] for x in (inputs.q, inputs.k, inputs.v, inputs.grad_out, inputs.grad_lse)
        )
        alone = run(in_chunks(8, 24), type(inputs)(q, k, v, d_out, d_lse))
        torch.testing.assert_close(alone.out, together.out[:, head : head + 1])
        torch.testing.assert_close(alone.dk, together.dk[:, head : head + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_are_equal_bit_by_bit(dtype: torch.dtype) -> None:
    inputs = random_inputs(num_tokens=50, head_dim=16, dtype=dtype, device=DEVICE)
    assert_same(run(in_chunks(16, 11), inputs), run(in_chunks(16, 11), inputs))


def test_views_into_a_fused_projection_need_no_other_layout() -> None:
    inputs = random_inputs(num_tokens=21, head_dim=8, batch=2)
    layout = Dense(21)
    results = run(through_the_api(layout), as_fused_projection(inputs))
    assert results.out.transpose(1, 2).is_contiguous()
    assert_as_exact_as_eager(results, inputs, layout)


def test_gradients_through_lse_alone() -> None:
    inputs = random_inputs(num_tokens=9, head_dim=4, dtype=torch.float64)
    q, k, v = inputs.leaves()
    dq, dk, dv = torch.autograd.grad(in_chunks(4, 4)(q, k, v)[1], (q, k, v), inputs.grad_lse)
    weight = (q @ k.mT * 0.5).softmax(dim=-1) * inputs.grad_lse.unsqueeze(-1) * 0.5
    torch.testing.assert_close((dq, dk, dv), (weight @ k, weight.mT @ q, torch.zeros_like(v)))


@pytest.mark.parametrize("option", ["query_chunk", "key_chunk"])
def test_a_chunk_of_nothing_is_refused(option: str) -> None:
    q = torch.zeros(1, 1, 3, 4)
    with pytest.raises(ValueError, match=f"{option}=0: expected 1 or more"):
        partial(chunked_attention, **{option: 0})(q, q, q, 1.0)


def test_checkpointing_gives_the_same_gradients() -> None:
    inputs = random_inputs(num_tokens=30, head_dim=8)
    plain = through_the_api(Dense(30, causal=True))
    assert_same(run(lambda q, k, v: checkpoint(plain, q, k, v, use_reentrant=False), inputs), run(plain, inputs))


@pytest.mark.parametrize("backward_inside", [False, True])
def test_autocast_rounds_the_inputs_and_nothing_else(backward_inside: bool) -> None:
    inputs = random_inputs(num_tokens=30, head_dim=8)
    rounded = inputs.to(torch.bfloat16)
    leaves = inputs.leaves()
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = through_the_api(Dense(30))(*leaves)
    with torch.autocast("cpu", torch.bfloat16, enabled=backward_inside):
        gradients = torch.autograd.grad((out, lse), leaves, (rounded.grad_out, rounded.grad_lse.float()))
    expected = run(through_the_api(Dense(30)), rounded)
    assert_same(
        Results(out, lse, *gradients),
        Results(expected.out, expected.lse, expected.dq.float(), expected.dk.float(), expected.dv.float()),
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks_into_the_same_result(dynamic: bool) -> None:
    inputs = random_inputs(num_tokens=30, head_dim=8)
    plain = through_the_api(Dense(30, causal=True))
    torch._dynamo.reset()
    compiled = torch.compile(plain, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    assert_same(run(compiled, inputs), run(plain, inputs))


def test_it_is_not_compiled_again_for_each_length() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda layout, q, k, v: through_the_api(layout)(q, k, v), fullgraph=True, backend=counter)
    for length in (9, 12, 17, 23):
        inputs, layout = random_inputs(num_tokens=length, head_dim=8), Dense(length)
        assert_same(run(partial(compiled, layout), inputs), run(through_the_api(layout), inputs))
    assert counter.frame_count == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_pass_opcheck(dtype: torch.dtype) -> None:
    inputs = as_fused_projection(random_inputs(num_tokens=9, head_dim=4, dtype=dtype))
    q, k, v = inputs.leaves()
    forward, backward = OPS.chunked_forward.default, OPS.chunked_backward.default
    torch.library.opcheck(forward, (q, k, v, 0.5, True, 4, 3))
    with torch.no_grad():
        saved = q.detach(), k.detach(), v.detach(), *forward(q, k, v, 0.5, True, 4, 3)
    torch.library.opcheck(backward, (inputs.grad_out, inputs.grad_lse.float(), *saved, 0.5, True, 4, 3))


def test_shapes_without_data() -> None:
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 3, length, 8, dtype=torch.bfloat16, requires_grad=True) for length in (9, 7, 7))
        out, lse = through_the_api(Dense(9, 7))(q, k, v)
        assert (out.shape, out.dtype) == ((2, 3, 9, 8), torch.bfloat16)
        assert (lse.shape, lse.dtype) == ((2, 3, 9), torch.float32)
        assert torch.autograd.grad(out.sum(), k)[0].shape == (2, 3, 7, 8)


@pytest.mark.parametrize(("causal", "pairs"), [(False, 30 * 30), (True, 30 * 31 // 2)])
def test_flops_are_those_of_attended_pairs(causal: bool, pairs: int) -> None:
    leaves = random_inputs(num_tokens=30, head_dim=8, heads=3).leaves()
    with FlopCounterMode(display=False) as counter:
        in_chunks(8, 8, causal)(*leaves)[0].sum().backward()
    assert counter.get_total_flops() == 2 * 8 * 3 * pairs * (2 + 5)


def out_of(attention: Attention) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return lambda q, k, v: attention(q, k, v)[0]


@pytest.mark.parametrize(("mode", "held"), [("inference", 1), ("gradient", 2)])
@pytest.mark.parametrize("num_tokens", [1024, 4096])
def test_memory_is_that_of_the_scores_of_one_pair_of_chunks(mode: str, held: int, num_tokens: int) -> None:
    scores = 4 * 256 * 512
    overhead = overhead_bytes(call_of(mode, out_of(in_chunks(256, 512)), num_tokens, CPU), CPU)
    # Beside the scores: four chunks of queries, 64 wide, a few numbers a query, lse and its gradient.
    assert held * scores <= overhead <= held * scores + 4 * 256 * (4 * 64 + 16) + 2 * 4 * num_tokens


@pytest.mark.parametrize("mode", ["inference", "gradient"])
def test_many_long_heads_need_no_more_memory_than_one(mode: str) -> None:
    attend = out_of(in_chunks(256, 512))

    def attend_with_eight_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(*(x.view(1, 8, 512, 64) for x in (q, k, v))).view_as(q)

    one, eight = (
        overhead_bytes(call_of(mode, function, tokens, CPU), CPU)
        for function, tokens in ((attend, 512), (attend_with_eight_heads, 8 * 512))
    )
    assert eight <= one + 2 * 4 * 8 * 512  # lse and its gradient


@pytest.mark.parametrize(("mode", "paper", "factor"), [("inference", 2**30, 59), ("gradient", 2**31, 32)])
def test_it_needs_as_little_at_16384_tokens_as_the_paper_says(mode: str, paper: int, factor: int) -> None:
    call = call_of(mode, out_of(in_chunks(1024, 4096)), 2**14, CPU)
    assert overhead_bytes(call, CPU) * factor <= paper


@pytest.mark.parametrize(("mode", "held"), [("inference", 2), ("gradient", 3)])
def test_the_measure_sees_the_scores_of_standard_attention(mode: str, held: int) -> None:
    overhead = overhead_bytes(call_of(mode, standard, 1024, CPU), CPU)
    assert overhead >= 0.9 * held * 4 * 1024**2


def test_a_model_with_dense_attention_in_chunks_learns() -> None:
    torch.manual_seed(0)
    model = TokenClassifier(
        inputs=TokenIds(4), num_classes=2, pattern=Dense, num_heads=2, d_model=16, d_ff=32, dropout=0.0,
        position="rotary", implementation="chunked",
    )  # fmt: skip
    tokens = torch.randint(4, (2, 33))
    labels = (tokens == tokens[:, :1]).long()  # what the first token is, only attention can tell
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(120):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        loss.backward()
        optimizer.step()
    assert loss < 0.05  # pyright: ignore[reportPossiblyUnbound]
