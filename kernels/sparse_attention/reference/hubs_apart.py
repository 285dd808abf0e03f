"""Attention with hubs apart in plain torch: `block_sparse` over the longer sequence, and torch's own gradients around.

Shapes: b batch, h heads, N tokens, d head_dim; P, C, R and L as in `HubsApart`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..layouts import HubsApart
from . import block_sparse


def attend(q: Tensor, k: Tensor, v: Tensor, layout: HubsApart, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse); inputs as `sparse_attention` has checked them."""
    q = _longer(q, layout.rows_index, layout)
    k, v = (_longer(x, layout.columns_index, layout) for x in (k, v))
    out, lse = block_sparse.attend(q, k, v, layout.blocks, scale)
    return _original(out, layout), _original(lse, layout)


def _longer(x: Tensor, copied: Tensor, layout: HubsApart) -> Tensor:
    """(b, h, L, d) from x (b, h, N, d): the tokens at `copied` from place P on, zeros where nothing else stands."""
    *shape, num_tokens, head_dim = x.shape
    gap = x.new_zeros((*shape, layout.first_copy - num_tokens, head_dim))
    end = x.new_zeros((*shape, layout.blocks.num_tokens - layout.first_copy - copied.numel(), head_dim))
    return torch.cat((x, gap, x.index_select(2, copied), end), dim=2)


def _original(x: Tensor, layout: HubsApart) -> Tensor:
    """The first N of x (b, h, L, ...), those of the queries apart taken from their copies."""
    copies = x[:, :, layout.first_copy : layout.first_copy + len(layout.rows)]
    return x[:, :, : layout.num_tokens].index_copy(2, layout.rows_index, copies)
