"""Attention in parts, merged by their log-sum-exp, in plain torch with torch's own gradients."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from ..layouts import BlockSparse, HubsApart, IndexList, InParts
from . import block_sparse, hubs_apart, index_list

Result = tuple[Tensor, Tensor]
"""out (b, h, n, d) and lse (b, h, n); 0 and -inf for a query that sees no key."""


def attend(q: Tensor, k: Tensor, v: Tensor, layout: InParts, scale: float) -> Result:
    """(out, lse); inputs as `sparse_attention` has checked them."""
    of_kind = {IndexList: index_list.attend, BlockSparse: block_sparse.attend, HubsApart: hubs_apart.attend}
    return reduce(merge, (of_kind[type(part)](q, k, v, part, scale) for part in layout.parts))


def merge(first: Result, second: Result) -> Result:
    """Attention over the keys of both, which have none in common."""
    lses = first[1], second[1]
    # The result does not depend on what is subtracted. Nothing may be subtracted from -inf but a number.
    top = torch.maximum(*lses).detach()
    top = top.masked_fill(top == -torch.inf, 0)
    weights = [(lse - top).exp() for lse in lses]
    total = weights[0] + weights[1]
    sees_a_key = total > 0
    total = torch.where(sees_a_key, total, 1)
    shares = [(weight / total).unsqueeze(-1) for weight in weights]
    out = first[0] * shares[0] + second[0] * shares[1]
    return out.to(first[0].dtype), torch.where(sees_a_key, top + total.log(), -torch.inf)
