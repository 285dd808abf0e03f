"""Exact dense attention in constant memory beyond inputs and results: plain torch on any device.

The algorithm of Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory" (2021, arXiv:2112.05682): chunks of
queries in an outer loop, chunks of keys and values in an inner one. For each query the inner loop carries the largest
score so far, the sum of exp(score - largest) and the sum of values weighted by it, and scales both sums down whenever
a larger score comes up (their section 3). Scores thus exist for one pair of chunks at a time, and the gradient computes
them again, pair by pair, as their checkpoint around the inner step does. Their listing keeps a summary of each chunk of
keys and joins all at the end of the inner loop; here the sums run, which spares the memory that grows with sqrt(N).

With weight_ij = exp(score_ij - lse_i), and d_x the gradient that reaches x:

    d_score_ij = weight_ij (d_out_i . v_j - d_out_i . out_i + d_lse_i)
    d_q_i = scale sum_j d_score_ij k_j        d_k_j = scale sum_i d_score_ij q_i        d_v_j = sum_i weight_ij d_out_i

Both passes are operators that torch knows: one node each for torch.compile, however many chunks there are.

Shapes: h heads taken together, n queries, m keys, d head_dim; r queries and c keys in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .layouts import Dense

QUERY_CHUNK = 1024
KEY_CHUNK = 4096
"""The paper's defaults: 16 MiB of float32 scores."""


def attend(q: Tensor, k: Tensor, v: Tensor, layout: Dense, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse); inputs as `sparse_attention` has checked them."""
    return chunked_attention(q, k, v, scale, layout.causal)


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    causal: bool = False,
    *,
    query_chunk: int = QUERY_CHUNK,
    key_chunk: int = KEY_CHUNK,
) -> tuple[Tensor, Tensor]:
    """Attention of all queries to all keys, or to those up to their own position when `causal` (then N = M).

    q:           (batch, heads, N, head_dim), any float dtype, any strides.
    k, v:        (batch, heads, M, head_dim), dtype and device as q.
    scale:       factor on the scores.
    query_chunk: queries whose scores are held at once.
    key_chunk:   keys whose scores are held at once. Heads are taken together as far as their scores fit into as much.

    Returns out (batch, heads, N, head_dim) in the dtype of q, and lse (batch, heads, N), natural log, in float32, or
    float64 for float64, in which all sums are taken. Gradients of q, k and v, through out and lse, are exact and the
    same in every run. Memory beyond inputs and results: query_chunk x key_chunk scores in the dtype of the sums, twice
    as many for the gradients, and for those of 16-bit inputs also the k and v of heads taken together in that dtype.

    Raises ValueError for a chunk below 1.
    """
    for name, size in (("query_chunk", query_chunk), ("key_chunk", key_chunk)):
        if size < 1:
            raise ValueError(f"{name}={size}: expected 1 or more")
    return _forward(q, k, v, scale, causal, query_chunk, key_chunk)


@torch.library.custom_op("sparse_attention::chunked_forward", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool, query_chunk: int, key_chunk: int
) -> tuple[Tensor, Tensor]:
    out, lse = _empty_results(q)
    with torch.autocast(q.device.type, enabled=False):
        for part in _parts(q, k, query_chunk, key_chunk):
            out_hnd, lse_hn = out[part], lse[part]
            for queries in _chunks(q.shape[2], query_chunk):
                queries_hrd = q[part][:, queries].to(lse.dtype) * scale
                sums = _RunningSums(queries_hrd)
                for keys in _chunks(queries.stop if causal else k.shape[2], key_chunk):
                    keys_hcd, values_hcd = (x[part][:, keys].to(lse.dtype) for x in (k, v))
                    sums.add(_scores(queries_hrd, keys_hcd, queries, keys, causal), values_hcd)
                out_hnd[:, queries], lse_hn[:, queries] = sums.results()
    return out, lse


class _RunningSums:
    """What the inner loop carries for a chunk of queries."""

    def __init__(self, queries_hrd: Tensor) -> None:
        self.largest_hr = queries_hrd.new_full(queries_hrd.shape[:-1], -torch.inf)
        self.weight_hr = torch.zeros_like(self.largest_hr)
        self.value_hrd = torch.zeros_like(queries_hrd)

    def add(self, score_hrc: Tensor, values_hcd: Tensor) -> None:
        """Take in a chunk of keys; its scores are overwritten."""
        largest_hr = torch.maximum(self.largest_hr, score_hrc.amax(dim=-1))
        weight_hrc = score_hrc.sub_(largest_hr.unsqueeze(-1)).exp_()
        shrink_hr = (self.largest_hr - largest_hr).exp_()
        self.weight_hr.mul_(shrink_hr).add_(weight_hrc.sum(dim=-1))
        self.value_hrd.mul_(shrink_hr.unsqueeze(-1)).baddbmm_(weight_hrc, values_hcd)
        self.largest_hr = largest_hr

    def results(self) -> tuple[Tensor, Tensor]:
        return self.value_hrd / self.weight_hr.unsqueeze(-1), self.largest_hr + self.weight_hr.log()


@torch.library.custom_op("sparse_attention::chunked_backward", mutates_args=())
def _backward(
    d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    scale: float, causal: bool, query_chunk: int, key_chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    with torch.autocast(q.device.type, enabled=False):
        for part in _parts(q, k, query_chunk, key_chunk):
            dq_hnd, lse_hn, d_lse_hn = dq[part], lse[part], d_lse[part]
            dk_hmd, dv_hmd = (_zeros_for_sums(gradient[part], lse.dtype) for gradient in (dk, dv))
            for queries in _chunks(q.shape[2], query_chunk):
                queries_hrd = q[part][:, queries].to(lse.dtype) * scale
                d_out_hrd, out_hrd = (x[part][:, queries].to(lse.dtype) for x in (d_out, out))
                offset_hr = (d_out_hrd * out_hrd).sum(dim=-1) - d_lse_hn[:, queries]
                gradients = _Gradients(queries_hrd, d_out_hrd, lse_hn[:, queries], offset_hr)
                for keys in _chunks(queries.stop if causal else k.shape[2], key_chunk):
                    keys_hcd, values_hcd = (x[part][:, keys].to(lse.dtype) for x in (k, v))
                    score_hrc = _scores(queries_hrd, keys_hcd, queries, keys, causal)
                    gradients.add(score_hrc, keys_hcd, values_hcd, dk_hmd[:, keys], dv_hmd[:, keys])
                dq_hnd[:, queries] = gradients.dq_hrd.mul_(scale)
            if lse.dtype != q.dtype:
                dk[part], dv[part] = dk_hmd, dv_hmd
    return dq, dk, dv


class _Gradients:
    """The gradient of a chunk of queries, which the inner loop carries, and its share in those of keys and values."""

    def __init__(self, queries_hrd: Tensor, d_out_hrd: Tensor, lse_hr: Tensor, offset_hr: Tensor) -> None:
        self.queries_hrd, self.d_out_hrd = queries_hrd, d_out_hrd
        self.lse_hr1, self.offset_hr1 = lse_hr.unsqueeze(-1), offset_hr.unsqueeze(-1)
        self.dq_hrd = torch.zeros_like(queries_hrd)

    def add(self, score_hrc: Tensor, keys_hcd: Tensor, values_hcd: Tensor, dk_hcd: Tensor, dv_hcd: Tensor) -> None:
        """Take in a chunk of keys and add to its gradients; its scores are overwritten."""
        weight_hrc = score_hrc.sub_(self.lse_hr1).exp_()
        dv_hcd.baddbmm_(weight_hrc.mT, self.d_out_hrd)
        d_score_hrc = torch.bmm(self.d_out_hrd, values_hcd.mT).sub_(self.offset_hr1).mul_(weight_hrc)
        dk_hcd.baddbmm_(d_score_hrc.mT, self.queries_hrd)
        self.dq_hrd.baddbmm_(d_score_hrc, keys_hcd)


def _parts(q: Tensor, k: Tensor, query_chunk: int, key_chunk: int) -> Iterator[tuple[int, slice]]:
    """Heads of one sequence that are taken together: as many as hold no more scores than one head of great length."""
    scores_of_a_head = min(query_chunk, q.shape[2]) * min(key_chunk, k.shape[2])
    step = query_chunk * key_chunk // scores_of_a_head
    return ((sequence, heads) for sequence in range(q.shape[0]) for heads in _chunks(q.shape[1], step))


def _chunks(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def _scores(queries_hrd: Tensor, keys_hcd: Tensor, queries: slice, keys: slice, causal: bool) -> Tensor:
    score_hrc = torch.bmm(queries_hrd, keys_hcd.mT)
    if causal and keys.stop > queries.start:
        first = max(keys.start, queries.start)
        later_hrc = score_hrc[:, :, first - keys.start :]
        hidden_rc = torch.ones(later_hrc.shape[1:], dtype=torch.bool, device=later_hrc.device)
        later_hrc.masked_fill_(hidden_rc.triu_(1 + queries.start - first), -torch.inf)
    return score_hrc


def _zeros_for_sums(gradient_hmd: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient itself, where sums may be taken in its dtype."""
    return gradient_hmd.zero_() if gradient_hmd.dtype == dtype else torch.zeros_like(gradient_hmd, dtype=dtype)


@_forward.register_fake
def _empty_results(q: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(q), q.new_empty(q.shape[:-1], dtype=torch.promote_types(q.dtype, torch.float32))


@_backward.register_fake
def _(d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.options = inputs[3:]


def _differentiate(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
    return *_backward(d_out, d_lse, *ctx.saved_tensors, *ctx.options), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save_for_backward)


def _flops(q: Tensor, k: Tensor, causal: bool, passes: int) -> int:
    """2 d for each attended pair and pass."""
    batch, heads, num_queries, head_dim = q.shape
    pairs = num_queries * (num_queries + 1) // 2 if causal else num_queries * k.shape[2]
    return 2 * head_dim * passes * batch * heads * pairs


@register_flop_formula(torch.ops.sparse_attention.chunked_forward, get_raw=True)
def _(q, k, v, scale, causal, *args, **kwargs) -> int:
    return _flops(q, k, causal, passes=2)


@register_flop_formula(torch.ops.sparse_attention.chunked_backward, get_raw=True)
def _(d_out, d_lse, q, k, v, out, lse, scale, causal, *args, **kwargs) -> int:
    return _flops(q, k, causal, passes=5)
