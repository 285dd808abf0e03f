"""Backward pass in two output-owned steps, without atomics: dq by row of blocks, then dk and dv by column.

    weight  = exp(score - lse)
    delta   = sum(out * d_out) - d_lse        of a query
    d_score = weight * (d_out . v - delta)
    dq = scale * sum of d_score k     over the keys of a query
    dk = scale * sum of d_score q     over the queries of a key
    dv = sum of weight d_out          over the queries of a key

The step by row also leaves lse in base 2 and delta of every query for the step by column.
"""

from torch import Tensor

from .by_column import by_column
from .by_row import by_row
from .launch import Tiles
from .lists import Lists


def backward(
    d_out: Tensor, d_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    rows: Lists, columns: Lists, scale: float, tiles: Tiles, gradients: tuple[Tensor, Tensor, Tensor],
) -> None:  # fmt: skip
    """Write dq (b, h, n, d), dk and dv (b, h, m, d) into `gradients`; any strides with contiguous last dims.

    d_lse (b, h, n) float32 with the strides of lse, or None where no gradient reaches lse. dk and dv share strides.
    """
    dq, dk, dv = gradients
    per_query = lse.new_empty((*lse.shape, 2))
    by_row(d_out, d_lse, q, k, v, out, lse, per_query, rows, scale, tiles.by_row, dq)
    by_column(d_out, q, k, v, per_query, columns, scale, tiles.by_column, dk, dv)
