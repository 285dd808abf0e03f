"""The operators that torch knows, one file for each kind of layout."""

from .block_sparse import block_sparse_attention, fused_block_sparse_attention
from .index_list import fused_index_list_attention, index_list_attention

__all__ = [
    "block_sparse_attention",
    "fused_block_sparse_attention",
    "fused_index_list_attention",
    "index_list_attention",
]
