"""Dense attention for the few queries of a pattern that see every key, in chunks of queries, with exact gradients.

Shapes: R such queries, M keys, d head_dim; r queries in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**24
"""Scores of one head that are held at once: 64 MiB of float32."""


def overwrite_full_rows(
    out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """`out` and `lse` with the queries at `rows` (R,) attending to all keys; everything else as it was."""
    out_rows, lse_rows = _DenseAttention.apply(q.index_select(2, rows), k, v, scale)  # pyright: ignore
    return out.index_copy(2, rows, out_rows), lse.index_copy(2, rows, lse_rows)


class _DenseAttention(torch.autograd.Function):
    """Saves q, k and v; scores are computed again in backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        dtype = torch.promote_types(q.dtype, torch.float32)
        out, lse = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=dtype, device=q.device)
        for head in _each_head(q):
            keys, values = k[head].to(dtype), v[head].to(dtype)
            for chunk in _chunks(q, k):
                score = q[head][chunk].to(dtype) @ keys.T * scale
                lse[head][chunk] = score.logsumexp(dim=-1)
                out[head][chunk] = (score.softmax(dim=-1) @ values).to(q.dtype)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        dtype = d_lse.dtype
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        with torch.autocast(q.device.type, enabled=False):
            for head in _each_head(q):
                keys, values = k[head].to(dtype), v[head].to(dtype)
                dk_head, dv_head = torch.zeros_like(keys), torch.zeros_like(values)
                for chunk in _chunks(q, k):
                    queries, d_outputs = q[head][chunk].to(dtype), d_out[head][chunk].to(dtype)
                    weight = (queries @ keys.T * ctx.scale).softmax(dim=-1)
                    d_weight = d_outputs @ values.T
                    mean = (weight * d_weight).sum(dim=-1, keepdim=True)
                    d_score = ctx.scale * weight * (d_weight - mean + d_lse[head][chunk].unsqueeze(-1))
                    dq[head][chunk] = d_score @ keys
                    dk_head += d_score.T @ queries
                    dv_head += weight.T @ d_outputs
                dk[head], dv[head] = dk_head, dv_head
        return dq, dk, dv, None


def _each_head(q: Tensor) -> Iterator[tuple[int, int]]:
    return ((batch, head) for batch in range(q.shape[0]) for head in range(q.shape[1]))


def _chunks(q: Tensor, k: Tensor) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // k.shape[2])
    return (slice(start, start + step) for start in range(0, q.shape[2], step))
