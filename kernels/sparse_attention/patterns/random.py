"""Keys drawn at random: the pattern of the question that this library began with."""

import torch

from ..layouts import IndexList
from .options import check_at_least


def random(num_tokens: int, *, keys_per_query: int = 8, seed: int = 0) -> IndexList:
    """`keys_per_query` keys for each query, drawn uniformly, with replacement, from the whole sequence.

    A key may thus be drawn twice, and then counts twice; for 8 keys of 100,000 that happens to 0.03 % of the queries.
    Drawn on the CPU: the same seed gives the same pattern on every device.

    Raises ValueError for num_tokens or keys_per_query below 1.
    """
    check_at_least(1, num_tokens=num_tokens, keys_per_query=keys_per_query)
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(num_tokens, (num_tokens, keys_per_query), generator=generator, dtype=torch.int32)
    return IndexList(indices, validate=False)
