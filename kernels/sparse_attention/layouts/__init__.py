"""How a pattern is stored: which keys each query sees, and what the backward pass needs to know of it."""

from .block_lists import BlockLists
from .block_sparse import BlockSparse
from .dense import Dense
from .index_list import IndexList, TransposedLists
from .layout import EMPTY, Layout
from .nearest import Nearest
from .per_head import PerHead

__all__ = [
    "EMPTY",
    "BlockLists",
    "BlockSparse",
    "Dense",
    "IndexList",
    "Layout",
    "Nearest",
    "PerHead",
    "TransposedLists",
]
