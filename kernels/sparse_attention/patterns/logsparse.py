"""Keys at distances that double: a path between any two tokens in log N layers, after LogSparse."""

from ..layouts import Layout
from ..rules import Choice, Steps, lay_out
from .options import check_at_least


def logsparse(
    num_tokens: int, *, window: int, causal: bool = False, layout: Choice = "auto", block_size: int = 64
) -> Layout:
    """Each query sees itself, `window` positions on each side, and the positions at distance 1, 2, 4, 8, .. beyond.

    The local attention and the exponential steps of LogSparse (Li et al. 2019, arXiv:1907.00235, section 4.2), which is
    causal: `causal` leaves out the keys after the query.

    The sum of N - |s| edges over the different steps s: at most 2 window + 2 ceil(log2 N) + 1 for each query, and about
    half as many when causal.

    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens below 1, window below 0, or an unknown layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_at_least(0, window=window)
    near = min(window, num_tokens - 1)
    doubling = [1 << power for power in range((num_tokens - 1).bit_length())]
    steps = [range(-near, 1 if causal else near + 1)]
    for distance in doubling:
        steps += [range(-distance, 1 - distance)] + ([] if causal else [range(distance, distance + 1)])
    return lay_out(Steps(tuple(steps)), num_tokens, layout=layout, block_size=block_size)
