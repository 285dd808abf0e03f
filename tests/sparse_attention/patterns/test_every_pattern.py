"""What holds for all patterns: one rule behind every layout, the edges that are promised, a quick build."""

import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from sparse_attention import Layout, patterns
from sparse_attention.layouts.block_sparse import BLOCK_SIZES

LAYOUTS: dict[str, Callable[..., Layout]] = {
    "window": partial(patterns.window, window=5),
    "window causal": partial(patterns.window, window=5, causal=True),
    "dilated": partial(patterns.dilated, window=2, dilations=[3, 27]),
    "longformer": partial(patterns.longformer, window=3, num_global=1),
    "strided": partial(patterns.strided, stride=10),
    "strided causal": partial(patterns.strided, stride=12, reach=40, causal=True),
    "fixed": partial(patterns.fixed, stride=12, num_summary=2),
    "fixed causal": partial(patterns.fixed, stride=10, num_summary=3, reach=2, causal=True),
    "logsparse": partial(patterns.logsparse, window=2),
    "logsparse causal": partial(patterns.logsparse, window=3, causal=True),
    "local": partial(patterns.local, size=9),
    "local causal": partial(patterns.local, size=20, causal=True),
    "hubs": partial(patterns.hubs, num_hubs=1, window=1),
    "hubs one way": partial(patterns.hubs, num_hubs=1, window=0, two_way=False),
    "documents": partial(patterns.documents, lengths=11),
    "documents with global tokens": partial(
        patterns.documents, lengths=30, within=partial(patterns.longformer, window=1, num_global=1)
    ),
    "union": partial(
        patterns.union, patterns=[partial(patterns.window, window=2), partial(patterns.random, keys_per_query=3)]
    ),
}
WITH_HUBS = ("longformer", "hubs", "hubs one way")
FIXED_LAYOUTS: dict[str, Callable[..., Layout]] = {
    "random": patterns.random,
    "bigbird": partial(patterns.bigbird, block_size=16),
    "bigbird of two heads": partial(patterns.bigbird, block_size=16, num_random=1, num_heads=2),
    "dense": patterns.dense,
    "dense causal": partial(patterns.dense, causal=True),
    "per_head": partial(patterns.per_head, patterns=[patterns.random, partial(patterns.local, size=5)], heads=[2, 1]),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("n", [1, 16, 131])
def test_all_layouts_of_a_pattern_hold_its_rule(name: str, n: int) -> None:
    position = torch.arange(n)
    stored = [{"layout": "auto"}, {"layout": "index_list"}]
    stored += [{"layout": "block_sparse", "block_size": size} for size in BLOCK_SIZES]
    if name in WITH_HUBS:
        stored += [{"layout": "hubs_apart", "block_size": size} for size in BLOCK_SIZES]
    for options in stored:
        layout = LAYOUTS[name](n, **options)
        allowed = layout.rule.allowed(position[:, None], position)
        assert torch.equal(layout.dense_mask(), allowed), options
        assert layout.num_edges == int(allowed.sum()), options


@pytest.mark.parametrize("name", FIXED_LAYOUTS)
@pytest.mark.parametrize("n", [1, 16, 131])
def test_a_pattern_with_one_layout_holds_its_rule(name: str, n: int) -> None:
    position = torch.arange(n)
    layout = FIXED_LAYOUTS[name](n)
    allowed = layout.rule.allowed(position[:, None], position)
    assert torch.equal(layout.dense_mask(), allowed.expand_as(layout.dense_mask()))


def edges_at(steps: set[int], n: int) -> int:
    return sum(n - abs(step) for step in steps if abs(step) < n)


N = 120
PROMISED = {
    "window": N * 11 - 5 * 6,
    "window causal": N * 6 - 5 * 6 // 2,
    "dilated": edges_at({-54, -27, 0, 27, 54, -6, -3, 3, 6}, N),
    "longformer": 2 * N - 1 + (N - 1) * 7 - 3 * 4,
    "strided": edges_at({*range(-9, 10), *range(-110, 120, 10)}, N),
    "strided causal": edges_at({*range(-11, 1), -12, -24, -36}, N),
    "fixed": N * (12 + (N // 12 - 1) * 2),
    "logsparse": edges_at({0, *(sign * 2**power for sign in (1, -1) for power in range(7))}, N),
    "logsparse causal": edges_at({0, -1, -2, -3, -4, -8, -16, -32, -64}, N),
    "local causal": N * 21 // 2,
    "hubs": 2 * N - 1 + edges_at({-1, 0, 1}, N) - 5,
    "hubs one way": N + N - 1,
    "documents": 10 * 11 * 11 + 10 * 10,
    "dense": N * N,
    "dense causal": N * (N + 1) // 2,
    "random": N * 8,
}


@pytest.mark.parametrize("name", PROMISED)
def test_the_cost_is_what_the_docstring_says(name: str) -> None:
    layout = (LAYOUTS | FIXED_LAYOUTS)[name](N)
    assert layout.num_edges == PROMISED[name]


def test_the_cost_of_bigbird_is_that_of_its_blocks() -> None:
    layout = patterns.bigbird(64 * 40, num_random=3)
    inner = 40 - 2 - 2
    # Blocks next to a global one have it in their window; all others see 3 + 2 + 3, global ones all.
    assert layout.num_edges == 64 * 64 * (2 * 40 + 2 * (2 + 2 + 3) + inner * 8)


BUILT_AT_A_MILLION = {
    **LAYOUTS,
    **FIXED_LAYOUTS,
    # Of the default options; the Sparse Transformer's patterns over the whole sequence grow as N^1.5.
    "strided": partial(patterns.strided, stride=32, reach=1024),
    "fixed": partial(patterns.fixed, stride=32, num_summary=1, reach=32),
    "bigbird": patterns.bigbird,
    "documents": partial(patterns.documents, lengths=1000),
    "knn": partial(patterns.knn, num_nearest=8),
    "hubs": partial(patterns.hubs, num_hubs=8, window=4),
    "hubs apart": partial(patterns.hubs, num_hubs=128, window=64, layout="hubs_apart"),
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for one another take processor time as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", BUILT_AT_A_MILLION)
def test_building_takes_time_and_memory_in_proportion_to_the_length(name: str) -> None:
    n = 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    assert BUILT_AT_A_MILLION[name](n).num_tokens == n
    # 1,000,000 tokens may take 2 s and 1 GiB.
    assert time.process_time() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patterns.strided(9, stride=0), "stride=0: expected a whole number, 1 or more"),
        (lambda: patterns.strided(9, stride=3, reach=0), "reach=0: expected a whole number, 1 or more"),
        (lambda: patterns.fixed(9, stride=3, num_summary=4), "num_summary=4: expected at most stride=3"),
        (lambda: patterns.fixed(9, stride=3, num_summary=0), "num_summary=0: expected a whole number, 1 or more"),
        (lambda: patterns.fixed(9, stride=3, num_summary=1, reach=-1), "reach=-1: expected a whole number, 0 or"),
        (lambda: patterns.logsparse(9, window=-1), "window=-1: expected a whole number, 0 or more"),
        (lambda: patterns.local(9, size=0), "size=0: expected a whole number, 1 or more"),
        (lambda: patterns.local(0, size=1), "num_tokens=0: expected a whole number, 1 or more"),
        (lambda: patterns.hubs(9, num_hubs=10, window=0), "num_hubs=10: expected at most num_tokens=9"),
        (lambda: patterns.dense(0), "num_tokens=0: expected a whole number, 1 or more"),
        (lambda: patterns.knn(9, num_nearest=0), "num_nearest=0: expected a whole number, 1 or more"),
        (lambda: patterns.knn(9, num_nearest=7, chunk=2), "num_nearest=7: expected at most 3 chunk=6"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(call: Callable[[], Layout], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
