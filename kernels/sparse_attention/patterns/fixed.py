"""Stretches that see themselves and a summary of the others, after the Sparse Transformer."""

from ..layouts import Layout
from ..rules import Choice, Everything, Stretches, lay_out
from .options import check_at_least, check_at_most


def fixed(
    num_tokens: int,
    *,
    stride: int,
    num_summary: int,
    reach: int | None = None,
    causal: bool = False,
    layout: Choice = "auto",
    block_size: int = 64,
) -> Layout:
    """Each query sees its own stretch of `stride` positions, and the last `num_summary` positions of every stretch.

    The fixed pattern of the Sparse Transformer (Child, Gray, Radford and Sutskever 2019, arXiv:1904.10509, section
    4.2), its two parts merged in one head; the paper is causal and calls num_summary c, 8 to 32 for strides of 128 and
    256. It takes a stride near the square root of N.

    If stride divides N: N (stride + (N / stride - 1) num_summary) edges, half as many, about, when causal.

    reach: stretches on each side whose last positions are seen, which makes the cost linear in N; None for all of them,
           as in the paper.
    causal: leave out the keys after the query.
    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens, stride or num_summary below 1, reach below 0, num_summary above stride, or an
    unknown layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens, stride=stride, num_summary=num_summary)
    check_at_most(stride, "stride", num_summary=num_summary)
    if reach is not None:
        check_at_least(0, reach=reach)
    stretches = -(-num_tokens // stride)
    away = stretches if reach is None else min(reach, stretches)
    rule = Stretches(stride, stride) | Stretches(stride, num_summary, -away, 0 if causal else away)
    rule = rule & Everything(causal=True) if causal else rule
    return lay_out(rule, num_tokens, layout=layout, block_size=block_size)
