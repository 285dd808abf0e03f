"""Attention over chosen keys: `sparse_attention(q, k, v, pattern)`; the pattern says which keys each query sees."""

from . import patterns
from .api import sparse_attention, sparse_self_attention
from .layouts import IndexList
from .support import IMPLEMENTATIONS, explain, why_not

__all__ = [
    "IMPLEMENTATIONS",
    "IndexList",
    "explain",
    "patterns",
    "sparse_attention",
    "sparse_self_attention",
    "why_not",
]
