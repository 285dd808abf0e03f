"""Attention window and global tokens, after Longformer (Beltagy, Peters and Cohan 2020)."""

import torch

from ..layouts import EMPTY, IndexList
from .options import check_at_least
from .window import window as sliding_window


def longformer(num_tokens: int, *, window: int, num_global: int) -> IndexList:
    """`window` positions on each side of each query; the first `num_global` tokens see all others and are seen by all.

    A global token inside a query's window is listed once. Unlike the paper's, global and other tokens share their
    projections: those are the model's affair.

    Raises ValueError for num_tokens below 1, window or num_global below 0, or num_global above num_tokens.
    """
    check_at_least(0, num_global=num_global)
    local = sliding_window(num_tokens, window=window).indices
    if num_global > num_tokens:
        raise ValueError(f"num_global={num_global}: expected at most num_tokens={num_tokens}")
    local = local.masked_fill(local < num_global, EMPTY)
    everywhere = torch.arange(num_global, dtype=torch.int32).expand(num_tokens, -1)
    indices = torch.cat((everywhere, local), dim=1)
    indices[:num_global] = EMPTY
    return IndexList(indices, full_rows=range(num_global), validate=False)
