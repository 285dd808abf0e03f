"""The few queries of an index list that see every key: attention over whole blocks of keys, written over their rows."""

from torch import Tensor

from .layouts import IndexList
from .reference.dense import dense_attention
from .support import IMPLEMENTATIONS


def overwrite_full_rows(
    out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, layout: IndexList, scale: float, implementation: str
) -> tuple[Tensor, Tensor]:
    """`out` and `lse` with the queries in `layout.full_rows` attending to all keys; everything else as it was."""
    rows = layout.full_rows_index
    out_rows, lse_rows = _attend(q.index_select(2, rows), k, v, layout, scale, implementation)
    return out.index_copy(2, rows, out_rows), lse.index_copy(2, rows, lse_rows)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, layout: IndexList, scale: float, implementation: str
) -> tuple[Tensor, Tensor]:
    """(out, lse) of queries q (b, h, R, d) that see all keys: in kernels where what took the table has some."""
    entry = IMPLEMENTATIONS[implementation]
    if implementation == "reference" or entry.refusal(q, k, v, layout.full_rows_blocks) is not None:
        return dense_attention(q, k, v, scale)
    return entry.load["block sparse"]()(q, k, v, layout.full_rows_blocks, scale)
