"""The operators that torch knows, one file for each kind of layout."""

from .block_sparse import block_sparse_attention, fused_block_sparse_attention
from .hubs_apart import fused_hubs_apart_attention, hubs_apart_attention
from .in_parts import fused_in_parts_attention, in_parts_attention
from .index_list import fused_index_list_attention, index_list_attention

__all__ = [
    "block_sparse_attention",
    "fused_block_sparse_attention",
    "fused_hubs_apart_attention",
    "fused_in_parts_attention",
    "fused_index_list_attention",
    "hubs_apart_attention",
    "in_parts_attention",
    "index_list_attention",
]
