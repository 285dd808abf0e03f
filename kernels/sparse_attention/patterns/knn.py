"""The nearest keys by content, chosen anew at every call."""

from ..layouts.nearest import Nearest
from .options import check_at_least, check_at_most


def knn(num_tokens: int, *, num_nearest: int, chunk: int = 64, causal: bool = False, seed: int = 0) -> Nearest:
    """Each query sees the `num_nearest` keys with the highest scores among those that hash to the same part of space.

    Random projections, sorted, in chunks, after Reformer (Kitaev, Kaiser and Levskaya 2020, arXiv:2001.04451); but the
    scores in a chunk are exact and only the best are kept, as in k nearest neighbour attention (Gupta et al. 2021,
    arXiv:2106.06899). Queries and keys have projections of their own, and one round of hashing is made.

    At most N num_nearest edges; choosing them takes 3 N chunk scores.

    chunk:  queries that are compared with the same 3 chunk keys.
    causal: leave out the keys after the query.
    seed:   of the projections.

    Raises ValueError for numbers below 1, or num_nearest above 3 chunk.
    """
    check_at_least(1, num_tokens=num_tokens, num_nearest=num_nearest, chunk=chunk)
    check_at_most(3 * chunk, "3 chunk", num_nearest=num_nearest)
    return Nearest(num_tokens, num_nearest=num_nearest, chunk=chunk, causal=causal, seed=seed)
