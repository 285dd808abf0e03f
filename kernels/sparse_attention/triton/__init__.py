"""Implementations in Triton, one package for each layout."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

from ..layouts import BlockSparse, HubsApart, IndexList, InParts, Layout, Nearest
from . import block_sparse

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HEAD_DIMS = (8, 1024)
MOST_SLOTS = 4096
IS_INSTALLED = find_spec("triton") is not None


def why_not(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> str | None:
    """Why the Triton kernels cannot take these inputs, or None when they can."""
    if q.device.type == "cpu":
        return "it needs a GPU, and q is on the CPU"
    if not IS_INSTALLED:
        return "the package triton is not installed"
    if q.dtype not in DTYPES:
        return f"it computes in float32, which is too coarse for {str(q.dtype).removeprefix('torch.')}"
    if not HEAD_DIMS[0] <= q.shape[-1] <= HEAD_DIMS[1]:
        return f"head_dim {q.shape[-1]} is not between {HEAD_DIMS[0]} and {HEAD_DIMS[1]}"
    if isinstance(layout, InParts):
        return next((reason for part in layout.parts if (reason := why_not(q, k, v, part)) is not None), None)
    if isinstance(layout, IndexList | Nearest) and layout.num_slots > MOST_SLOTS:
        return f"the pattern lists {layout.num_slots} keys for a query; at most {MOST_SLOTS} fit"
    return block_sparse.why_not(q) if isinstance(layout, BlockSparse | HubsApart) else None
