"""How a pattern is stored: which keys each query sees, and what the backward pass needs to know of it."""

from .block_sparse import BlockLists, BlockSparse
from .dense import Dense
from .index_list import IndexList, TransposedLists
from .layout import EMPTY, Layout

__all__ = ["EMPTY", "BlockLists", "BlockSparse", "Dense", "IndexList", "Layout", "TransposedLists"]
