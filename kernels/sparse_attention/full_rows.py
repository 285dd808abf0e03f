"""The few queries of an index list that see every key: dense attention, written over their rows."""

from torch import Tensor

from .reference.dense import dense_attention


def overwrite_full_rows(
    out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """`out` and `lse` with the queries at `rows` (R,) attending to all keys; everything else as it was."""
    out_rows, lse_rows = dense_attention(q.index_select(2, rows), k, v, scale)
    return out.index_copy(2, rows, out_rows), lse.index_copy(2, rows, lse_rows)
