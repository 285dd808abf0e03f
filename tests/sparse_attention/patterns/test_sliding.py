"""window, dilated and longformer against their definitions, one token at a time."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from sparse_attention import IndexList, Layout, patterns


def as_index_list(pattern: Callable[..., Layout], num_tokens: int, **options: Any) -> IndexList:
    layout = pattern(num_tokens, layout="index_list", **options)
    assert isinstance(layout, IndexList)
    return layout


window_list, dilated_list, longformer_list = (
    partial(as_index_list, pattern) for pattern in (patterns.window, patterns.dilated, patterns.longformer)
)


def keys_of(layout: IndexList) -> list[list[int]]:
    return [sorted(key for key in row if key >= 0) for row in layout.indices.tolist()]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 1, 3, 20])
@pytest.mark.parametrize("num_tokens", [1, 2, 13])
def test_window_is_every_token_around_the_query(num_tokens: int, window: int, causal: bool) -> None:
    expected = [
        [j for j in range(num_tokens) if abs(i - j) <= window and (j <= i or not causal)] for i in range(num_tokens)
    ]
    assert keys_of(window_list(num_tokens, window=window, causal=causal)) == expected


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dilations", [[1], [4], [1, 2, 4], [3, 3], [1, 50]])
@pytest.mark.parametrize("num_tokens", [1, 2, 29])
def test_dilated_lists_each_position_once(num_tokens: int, dilations: list[int], causal: bool) -> None:
    window = 3
    steps = {sign * step * dilation for sign in (1, -1) for dilation in dilations for step in range(window + 1)}
    expected = [[j for j in range(num_tokens) if j - i in steps and (j <= i or not causal)] for i in range(num_tokens)]
    assert keys_of(dilated_list(num_tokens, window=window, dilations=dilations, causal=causal)) == expected


def test_slots_that_no_query_can_use_are_not_stored() -> None:
    assert window_list(4, window=100).num_slots == 4
    assert dilated_list(4, window=1, dilations=[1, 100]).num_slots == 3


@pytest.mark.parametrize("num_global", [0, 1, 3, 13])
@pytest.mark.parametrize("window", [0, 2])
def test_longformer_is_a_window_and_tokens_that_see_all_and_are_seen_by_all(window: int, num_global: int) -> None:
    layout = longformer_list(13, window=window, num_global=num_global)
    expected = [
        [] if i < num_global else [j for j in range(13) if j < num_global or abs(i - j) <= window] for i in range(13)
    ]
    assert keys_of(layout) == expected
    assert layout.full_rows == tuple(range(num_global))
    assert layout.num_edges == sum(map(len, expected)) + 13 * num_global


@pytest.mark.parametrize(
    "layout",
    [
        window_list(50, window=3),
        dilated_list(50, window=3, dilations=[1, 7]),
        longformer_list(50, window=3, num_global=4),
        patterns.random(50),
    ],
    ids=["window", "dilated", "longformer", "random"],
)
def test_tables_built_without_validation_are_valid(layout: IndexList) -> None:
    assert IndexList(layout.indices, layout.num_keys, layout.full_rows).num_edges == layout.num_edges


def test_a_million_tokens_are_built_without_a_loop_over_them() -> None:
    start = time.process_time()
    layout = dilated_list(1_000_000, window=4, dilations=[1, 16])
    # It takes 0.1 s; on a busy machine, where fresh memory is slow, up to 3.
    assert time.process_time() - start < 10
    assert layout.indices[500_000].tolist() == [500_000 + step for step in sorted(steps_of(4, [1, 16]))]


def steps_of(window: int, dilations: list[int]) -> set[int]:
    return {sign * step * dilation for sign in (1, -1) for dilation in dilations for step in range(window + 1)}


def test_tables_are_int32_and_contiguous() -> None:
    indices = window_list(9, window=2).indices
    assert indices.dtype == torch.int32
    assert indices.is_contiguous()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patterns.window(0, window=1), "num_tokens=0: expected a whole number, 1 or more"),
        (lambda: patterns.window(8, window=-3), "window=-3: expected a whole number, 0 or more"),
        (lambda: patterns.window(8, window=1.5), "window=1.5: expected a whole number"),  # pyright: ignore
        (lambda: patterns.window(8, window=True), "window=True: expected a whole number"),
        (lambda: patterns.dilated(8, window=-1, dilations=[1]), "window=-1: expected"),
        (lambda: patterns.dilated(8, window=1, dilations=[]), r"dilations=\[\]: expected a list of one or more"),
        (lambda: patterns.dilated(8, window=1, dilations=3), "dilations=3: expected a list of one or more"),  # pyright: ignore
        (lambda: patterns.dilated(8, window=1, dilations="12"), "dilations='12': expected a list"),  # pyright: ignore
        (lambda: patterns.dilated(8, window=1, dilations=[4, 0]), "dilations=0: expected a whole number, 1 or more"),
        (lambda: patterns.longformer(8, window=1, num_global=-1), "num_global=-1: expected a whole number, 0 or more"),
        (lambda: patterns.longformer(8, window=1, num_global=9), "num_global=9: expected at most num_tokens=8"),
        (lambda: patterns.longformer(8, window=-1, num_global=0), "window=-1: expected"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
