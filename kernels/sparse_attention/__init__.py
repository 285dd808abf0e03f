"""Attention over chosen keys: `sparse_attention(q, k, v, pattern)`; the pattern says which keys each query sees."""

from . import patterns
from .api import sparse_attention, sparse_self_attention
from .layouts import BlockSparse, Dense, IndexList, Layout
from .support import IMPLEMENTATIONS, explain, why_not

__all__ = [
    "IMPLEMENTATIONS",
    "BlockSparse",
    "Dense",
    "IndexList",
    "Layout",
    "explain",
    "patterns",
    "sparse_attention",
    "sparse_self_attention",
    "why_not",
]
