"""Every key: what sparse patterns are compared with."""

from ..layouts import Dense
from .options import check_at_least


def dense(num_tokens: int, *, causal: bool = False) -> Dense:
    """Each query sees all keys, or all keys up to its own position when `causal`.

    Vaswani et al. (2017, arXiv:1706.03762). N^2 edges, or N (N + 1) / 2 when causal.

    Raises ValueError for num_tokens below 1.
    """
    check_at_least(1, num_tokens=num_tokens)
    return Dense(num_tokens, causal=causal)
