"""Attention window and global tokens, after Longformer."""

from ..layouts import Layout
from ..rules import Choice, Columns, Rows, Steps, lay_out
from .options import check_at_least, check_at_most


def longformer(
    num_tokens: int, *, window: int, num_global: int, layout: Choice = "auto", block_size: int = 64
) -> Layout:
    """`window` positions on each side of each query; the first `num_global` tokens see all others and are seen by all.

    Longformer (Beltagy, Peters and Cohan 2020, arXiv:2004.05150, section 3.1), whose window of 2 w is w on each side
    here. Unlike the paper's, global and other tokens share their projections: those are the model's affair.

    For g = num_global, w = window and m = N - g > w: 2 g N - g^2 + m (2 w + 1) - w (w + 1) edges.

    layout, block_size: how it is stored, as `rules.lay_out` takes them.

    Raises ValueError for num_tokens below 1, window or num_global below 0, num_global above num_tokens, or an unknown
    layout or block size.
    """
    check_at_least(1, num_tokens=num_tokens)
    check_at_least(0, window=window, num_global=num_global)
    check_at_most(num_tokens, "num_tokens", num_global=num_global)
    everywhere = tuple(range(num_global))
    far = min(window, num_tokens - 1)
    rule = Columns(everywhere) | Steps((range(-far, far + 1),)) | Rows(everywhere)
    return lay_out(rule, num_tokens, layout=layout, block_size=block_size)
