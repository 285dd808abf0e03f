"""Dense attention in chunks of queries, with exact gradients: plain torch on any device.

Shapes: R queries, M keys, d head_dim; r queries in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layouts import Dense

CHUNK_ELEMENTS = 2**24
"""Scores of one head that are held at once: 64 MiB of float32."""


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Dense, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse); inputs as `sparse_attention` has checked them."""
    return dense_attention(q, k, v, scale, layout.causal)


def dense_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False) -> tuple[Tensor, Tensor]:
    """out (b, h, R, d) and lse (b, h, R) of queries q (b, h, R, d) that see all keys k, v (b, h, M, d)."""
    return _DenseAttention.apply(q, k, v, scale, causal)  # pyright: ignore[reportReturnType]


class _DenseAttention(torch.autograd.Function):
    """Saves q, k and v; scores are computed again in backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(q, k, v)
        ctx.scale, ctx.causal = scale, causal
        dtype = torch.promote_types(q.dtype, torch.float32)
        out, lse = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=dtype, device=q.device)
        for head in _each_head(q):
            keys, values = k[head].to(dtype), v[head].to(dtype)
            for chunk in _chunks(q, k):
                score = _scores(q[head][chunk].to(dtype), keys, scale, chunk, causal)
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
                    weight = _scores(queries, keys, ctx.scale, chunk, ctx.causal).softmax(dim=-1)
                    d_weight = d_outputs @ values.T
                    mean = (weight * d_weight).sum(dim=-1, keepdim=True)
                    d_score = ctx.scale * weight * (d_weight - mean + d_lse[head][chunk].unsqueeze(-1))
                    dq[head][chunk] = d_score @ keys
                    dk_head += d_score.T @ queries
                    dv_head += weight.T @ d_outputs
                dk[head], dv[head] = dk_head, dv_head
        return dq, dk, dv, None, None


def _scores(queries_rd: Tensor, keys_md: Tensor, scale: float, chunk: slice, causal: bool) -> Tensor:
    score = queries_rd @ keys_md.T * scale
    if causal:
        position = torch.arange(keys_md.shape[0], device=score.device)
        score.masked_fill_(position[None, :] > position[chunk, None], -torch.inf)
    return score


def _each_head(q: Tensor) -> Iterator[tuple[int, int]]:
    return ((batch, head) for batch in range(q.shape[0]) for head in range(q.shape[1]))


def _chunks(q: Tensor, k: Tensor) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // k.shape[2])
    return (slice(start, start + step) for start in range(0, q.shape[2], step))
