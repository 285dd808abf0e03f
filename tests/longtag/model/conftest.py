import pytest
import torch

from sparse_attention import IndexList


def every_query_lists_every_key(num_tokens: int) -> IndexList:
    return IndexList(torch.arange(num_tokens, dtype=torch.int32).expand(num_tokens, num_tokens))


@pytest.fixture
def dense():
    """A pattern that makes sparse attention dense."""
    return every_query_lists_every_key
