"""Parts of a block in few passes over memory, each with a backward of its own: Triton kernels around matrix products.

What surrounds the products of a block, sums, norms, ReLU and dropout, does next to no arithmetic: its time is that of
reading and writing tensors. Torch does them one at a time, and keeps most of their results for backward.
"""

from longtag.fused.behind_attention import BehindAttention, Weights, behind_attention
from longtag.fused.dtypes import product_dtype
from longtag.fused.project import project_beside
from longtag.fused.support import why_not

__all__ = ["BehindAttention", "Weights", "behind_attention", "product_dtype", "project_beside", "why_not"]
