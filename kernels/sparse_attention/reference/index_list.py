"""The readable implementation: plain torch on any device, exact gradients, memory O(N (n + d)) for one head at a time.

For query i and the keys j(1) .. j(n) that its row lists:

    score_is = scale * q_i . k_j(s)       weight_is = exp(score_is - lse_i)       lse_i = log sum_s exp(score_is)
    out_i    = sum_s weight_is v_j(s)

and backward, with d_x the gradient that reaches x:

    d_weight_is = d_out_i . v_j(s)
    d_score_is  = weight_is * (d_weight_is - sum_t weight_it d_weight_it + d_lse_i)
    d_q_i = scale * sum_s d_score_is k_j(s)
    d_k_j = scale * sum over the edges (i, s) that end in j of d_score_is q_i        (d_v_j alike, of weight_is d_out_i)

Sums over edges are embedding bags: `embedding_bag` gathers rows, weights them and adds them up in a fixed order without
storing them. Dot products do need the gathered rows: they are taken in chunks of queries that fit a CPU's cache.

Shapes: N queries, M keys, n slots a query, d head_dim; c queries in a chunk. An empty slot points at a row of zeros
that is put behind the M keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layouts import IndexList

CHUNK_ELEMENTS = {"cpu": 2**21, "cuda": 2**25}
"""Gathered elements held at once: 8 MiB of float32 on a CPU, for its cache; 128 MiB on a GPU, to keep it busy."""


def attend(q: Tensor, k: Tensor, v: Tensor, layout: IndexList, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse) over the edges of the table, `full_rows` left out; inputs as `sparse_attention` has checked them."""
    return _IndexListAttention.apply(q, k, v, layout, scale)  # pyright: ignore[reportReturnType]


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for all others."""
    return torch.promote_types(dtype, torch.float32)


class _IndexListAttention(torch.autograd.Function):
    """Saves q, k and v alone: a row's weights follow from its own scores, so backward reads neither out nor lse."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: IndexList, scale: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(q, k, v)
        ctx.layout, ctx.scale = layout, scale
        out = torch.empty_like(q)
        lse = torch.empty(q.shape[:-1], dtype=accumulation_dtype(q.dtype), device=q.device)
        for batch, head, table in _each_head(q, layout):
            queries, keys, values = _queries(q[batch, head]), _keys(k[batch, head]), _keys(v[batch, head])
            for chunk in _chunks(table.rows, queries):
                weight, lse[batch, head, chunk] = _weights(queries[chunk], keys, table.rows[chunk], scale)
                out[batch, head, chunk] = _weighted_sum(weight, values, table.rows[chunk])
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for batch, head, table in _each_head(q, ctx.layout):
            queries, keys, values = _queries(q[batch, head]), _keys(k[batch, head]), _keys(v[batch, head])
            d_outputs = _queries(d_out[batch, head])
            weight, d_score = (torch.empty(table.rows.shape, dtype=keys.dtype, device=q.device) for _ in range(2))
            for chunk in _chunks(table.rows, queries):
                rows = table.rows[chunk]
                weight[chunk], _ = _weights(queries[chunk], keys, rows, ctx.scale)
                d_weight = _dot(d_outputs[chunk], values, rows)
                d_score[chunk] = ctx.scale * _softmax_backward(weight[chunk], d_weight, d_lse[batch, head, chunk])
                dq[batch, head, chunk] = _weighted_sum(d_score[chunk], keys, rows)
            dk[batch, head] = _weighted_sum_by_key(d_score, queries, table)
            dv[batch, head] = _weighted_sum_by_key(weight, d_outputs, table)
        return dq, dk, dv, None, None


class _Table:
    """The edges of one head, as embedding bags take them."""

    def __init__(self, layout: IndexList, head: int) -> None:
        self.layout, self.head = layout, head

    @cached_property
    def rows(self) -> Tensor:
        """(N, n) rows of `_keys` for each query."""
        indices = self._of_head(self.layout.indices)
        return torch.where(indices >= 0, indices, self.layout.num_keys)

    @cached_property
    def offsets(self) -> Tensor:
        """(M + 1,) where the edges of each key begin."""
        return self._of_head(self.layout.transposed.offsets)

    @cached_property
    def edges(self) -> Tensor:
        """All edges by key, without the tail of empty slots."""
        return self._of_head(self.layout.transposed.edges)[: int(self.offsets[-1])]

    @cached_property
    def queries(self) -> Tensor:
        """The query of each of `edges`."""
        return self.edges // self.layout.num_slots

    def _of_head(self, tensor: Tensor) -> Tensor:
        return tensor if self.layout.num_heads is None else tensor[self.head]


def _each_head(q: Tensor, layout: IndexList) -> Iterator[tuple[int, int, _Table]]:
    tables = [_Table(layout, head) for head in range(layout.num_heads or 1)]
    return ((batch, head, tables[head % len(tables)]) for batch in range(q.shape[0]) for head in range(q.shape[1]))


def _queries(x_nd: Tensor) -> Tensor:
    return x_nd.to(accumulation_dtype(x_nd.dtype)).contiguous()


def _keys(x_md: Tensor) -> Tensor:
    x_md = x_md.to(accumulation_dtype(x_md.dtype))
    return torch.cat((x_md, x_md.new_zeros(1, x_md.shape[1])))


def _chunks(rows: Tensor, queries: Tensor) -> Iterator[slice]:
    limit = CHUNK_ELEMENTS.get(rows.device.type, CHUNK_ELEMENTS["cuda"])
    step = max(1, limit // (rows.shape[1] * queries.shape[1]))
    return (slice(start, start + step) for start in range(0, rows.shape[0], step))


def _dot(queries_cd: Tensor, keys: Tensor, rows_cn: Tensor) -> Tensor:
    """(c, n): each query times each of its keys."""
    gathered = keys.index_select(0, rows_cn.flatten()).view(*rows_cn.shape, -1)
    return gathered.mul_(queries_cd.unsqueeze(1)).sum(dim=-1)


def _weights(queries_cd: Tensor, keys: Tensor, rows_cn: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Softmax over each row, (c, n), and its lse, (c,); a row without keys has weights of 0 and an lse of -inf."""
    empty = rows_cn == keys.shape[0] - 1
    score = (_dot(queries_cd, keys, rows_cn) * scale).masked_fill_(empty, -torch.inf)
    top = score.amax(dim=-1, keepdim=True)
    top.masked_fill_(top == -torch.inf, 0)
    weight = score.sub_(top).exp_()
    total = weight.sum(dim=-1, keepdim=True)
    lse = top + total.log()
    return weight.div_(total.masked_fill_(total == 0, 1)), lse.squeeze(-1)


def _softmax_backward(weight: Tensor, d_weight: Tensor, d_lse: Tensor) -> Tensor:
    mean = (weight * d_weight).sum(dim=-1, keepdim=True)
    # Without a weight no gradient, whatever reaches the lse of a row without keys: that may well be NaN.
    return (weight * (d_weight - mean + d_lse.unsqueeze(-1))).masked_fill_(weight == 0, 0)


def _weighted_sum(weight_cn: Tensor, keys: Tensor, rows_cn: Tensor) -> Tensor:
    """(c, d): the rows of `keys` that each query lists, weighted and added up."""
    return F.embedding_bag(rows_cn, keys, mode="sum", per_sample_weights=weight_cn)


def _weighted_sum_by_key(weight: Tensor, queries: Tensor, table: _Table) -> Tensor:
    """(M, d): the queries that see each key, weighted by (N, n) `weight` and added up in the order of the edges."""
    weight_of_edges = weight.flatten().index_select(0, table.edges)
    return F.embedding_bag(
        table.queries, queries, table.offsets, mode="sum", per_sample_weights=weight_of_edges, include_last_offset=True
    )
