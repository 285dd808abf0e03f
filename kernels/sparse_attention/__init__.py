"""Attention over chosen keys: `sparse_attention(q, k, v, pattern)`; the pattern says which keys each query sees."""

from . import patterns
from .api import sparse_attention, sparse_self_attention
from .layouts import BlockSparse, Dense, HubsApart, IndexList, InParts, Layout, Nearest, PerHead
from .show import show
from .support import IMPLEMENTATIONS, choose, explain, why_not

__all__ = [
    "IMPLEMENTATIONS",
    "BlockSparse",
    "Dense",
    "HubsApart",
    "InParts",
    "IndexList",
    "Layout",
    "Nearest",
    "PerHead",
    "choose",
    "explain",
    "patterns",
    "show",
    "sparse_attention",
    "sparse_self_attention",
    "why_not",
]
