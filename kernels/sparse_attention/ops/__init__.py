"""The operators that torch knows, one file for each kind of layout."""

from .index_list import fused_index_list_attention, index_list_attention

__all__ = ["fused_index_list_attention", "index_list_attention"]
