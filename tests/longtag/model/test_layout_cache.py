import copy
import pickle

import pytest
import torch

from longtag.errors import UsageError
from longtag.model.layout_cache import LayoutCache
from sparse_attention import IndexList

CPU = torch.device("cpu")
built = []


def each_token_sees_itself(num_tokens: int) -> IndexList:
    built.append(num_tokens)
    return IndexList(torch.arange(num_tokens, dtype=torch.int32)[:, None])


@pytest.fixture(autouse=True)
def _forget_builds():
    built.clear()


def test_a_layout_is_built_once_for_each_length():
    cache = LayoutCache(each_token_sees_itself)
    assert cache.get(3, CPU) is cache.get(3, CPU)
    assert cache.get(5, CPU).num_tokens == 5
    assert built == [3, 5]


def test_each_device_gets_a_layout_of_its_own():
    cache = LayoutCache(each_token_sees_itself)
    assert cache.get(3, torch.device("meta")).device == torch.device("meta")
    assert cache.get(3, CPU).device == CPU


def test_the_length_used_longest_ago_is_dropped_first():
    cache = LayoutCache(each_token_sees_itself, capacity=2)
    for num_tokens in (3, 5, 3, 7, 3, 5):
        cache.get(num_tokens, CPU)
    assert built == [3, 5, 7, 5]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_and_pickles_hold_the_pattern_and_no_layout(copied):
    cache = LayoutCache(each_token_sees_itself, capacity=7)
    cache.get(1000, CPU)
    assert len(pickle.dumps(cache)) < 500
    twin = copied(cache)
    twin.get(1000, CPU)
    assert twin.capacity == 7
    assert built == [1000, 1000]
    assert cache.get(1000, CPU) is not twin.get(1000, CPU)


def test_what_the_pattern_refuses_reaches_the_user_as_a_usage_error():
    def refuses(num_tokens: int) -> IndexList:
        raise ValueError(f"the table has 10 rows, not {num_tokens}")

    with pytest.raises(UsageError, match="pattern: the table has 10 rows, not 4"):
        LayoutCache(refuses).get(4, CPU)
