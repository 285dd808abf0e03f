"""Stretches of the sequence that see themselves alone."""

from ..layouts import Layout
from ..rules import Choice, Everything, Stretches, lay_out
from .options import check_at_least


def local(num_tokens: int, *, size: int, causal: bool = False, layout: Choice = "auto", block_size: int = 64) -> Layout:
    """The sequence is cut into stretches of `size` positions, and each query sees all of its own stretch.

    Block-local attention, as in Image Transformer (Parmar et al. 2018, arXiv:1802.05751) and blockwise attention (Qiu
    et al. 2020, arXiv:1911.02972). `causal` leaves out the keys after the query.

    If size divides N: N size edges, or N (size + 1) / 2 when causal.

    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens or size below 1, or an unknown layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens, size=size)
    rule = Stretches(size, size)
    rule = rule & Everything(causal=True) if causal else rule
    return lay_out(rule, num_tokens, layout=layout, block_size=block_size)
