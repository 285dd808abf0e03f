"""How a pattern is stored: which keys each query sees, and what the backward pass needs to know of it."""

from .block_lists import BlockLists
from .block_sparse import BlockSparse
from .dense import Dense
from .hubs_apart import HubsApart
from .in_parts import InParts
from .index_list import IndexList, TransposedLists
from .layout import EMPTY, Layout
from .nearest import Nearest
from .per_head import PerHead

__all__ = [
    "EMPTY",
    "BlockLists",
    "BlockSparse",
    "Dense",
    "HubsApart",
    "InParts",
    "IndexList",
    "Layout",
    "Nearest",
    "PerHead",
    "TransposedLists",
]
