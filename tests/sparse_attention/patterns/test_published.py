"""Published patterns on short sequences, against their definitions written out token by token."""

import pytest

from sparse_attention import Layout, patterns

N = 37


def seen(layout: Layout) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in layout.dense_mask()]


@pytest.mark.parametrize("stride", [1, 6, 50])
def test_strided_is_the_two_sets_of_the_sparse_transformer(stride: int) -> None:
    # A1 = {t .. i}, t = max(0, i - l), and A2 = {j: (i - j) mod l = 0}.
    expected = [{j for j in range(i + 1) if j >= i - stride or (i - j) % stride == 0} for i in range(N)]
    assert seen(patterns.strided(N, stride=stride, causal=True)) == expected


def test_strides_end_where_their_reach_does() -> None:
    expected = [{j for j in range(N) if abs(i - j) < 4 or (abs(i - j) % 4 == 0 and abs(i - j) <= 10)} for i in range(N)]
    assert seen(patterns.strided(N, stride=4, reach=10)) == expected


@pytest.mark.parametrize(("stride", "summary"), [(1, 1), (6, 2), (8, 8), (50, 3)])
def test_fixed_is_the_two_sets_of_the_sparse_transformer(stride: int, summary: int) -> None:
    # A1 = {j: floor(j / l) = floor(i / l)} and A2 = {j: j mod l in {t, t + 1, .. l - 1}}, t = l - c.
    expected = [
        {j for j in range(i + 1) if j // stride == i // stride or j % stride >= stride - summary} for i in range(N)
    ]
    assert seen(patterns.fixed(N, stride=stride, num_summary=summary, causal=True)) == expected


def test_summaries_of_stretches_within_reach_are_seen() -> None:
    expected = [
        {j for j in range(N) if j // 5 == i // 5 or (j % 5 == 4 and abs(j // 5 - i // 5) <= 2)} for i in range(N)
    ]
    assert seen(patterns.fixed(N, stride=5, num_summary=1, reach=2)) == expected


def test_logsparse_sees_its_neighbours_and_doubling_distances() -> None:
    expected = [{j for j in range(i + 1) if i - j in {0, 1, 2, 3, 4, 8, 16, 32}} for i in range(N)]
    assert seen(patterns.logsparse(N, window=3, causal=True)) == expected
    both = [{j for j in range(N) if abs(i - j) in {0, 1, 2, 4, 8, 16, 32}} for i in range(N)]
    assert seen(patterns.logsparse(N, window=0)) == both


@pytest.mark.parametrize("causal", [False, True])
def test_local_stretches_see_themselves(causal: bool) -> None:
    expected = [{j for j in range(N) if i // 8 == j // 8 and (j <= i or not causal)} for i in range(N)]
    assert seen(patterns.local(N, size=8, causal=causal)) == expected


@pytest.mark.parametrize("two_way", [True, False])
def test_hubs_stand_in_the_middle_of_equal_parts(two_way: bool) -> None:
    hubs = {5, 15, 25, 35}
    expected = [{j for j in range(40) if j in hubs or abs(i - j) <= 1 or (two_way and i in hubs)} for i in range(40)]
    assert seen(patterns.hubs(40, num_hubs=4, window=1, two_way=two_way)) == expected


def test_a_window_and_one_doubling_step_are_a_path_between_any_two_tokens() -> None:
    reached = patterns.logsparse(64, window=0).dense_mask().float()
    steps = reached
    for _ in range(5):
        steps = (steps @ reached).clamp(max=1)
    assert steps.all()
