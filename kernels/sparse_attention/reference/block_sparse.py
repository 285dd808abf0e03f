"""Attention over block sparse lists in plain torch, with exact gradients, on any device.

Rows with about as many entries each go through together: their key blocks are gathered side by side, and scores and
sums are batched matrix products. Gradients of keys and values come from the transposed lists in the same way, so that
nothing is scattered and every sum has one order.

Shapes: g heads of the batch that share lists, R rows of blocks, C columns, B block_size, d head_dim; c rows in a chunk,
w entries of each, padded to the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..layouts import BlockLists, BlockSparse
from ..layouts.block_lists import WHOLE

CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**25}
"""Scores held at once: 4 MiB of float32 on a CPU, for its cache; more only where one row has more."""


def attend(q: Tensor, k: Tensor, v: Tensor, layout: BlockSparse, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse); inputs as `sparse_attention` has checked them."""
    return _BlockSparseAttention.apply(q, k, v, layout, scale)  # pyright: ignore[reportReturnType]


class _BlockSparseAttention(torch.autograd.Function):
    """Saves q, k and v; scores are computed again in backward, by row and then by column."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: BlockSparse, scale: float) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(q, k, v)
        ctx.layout, ctx.scale = layout, scale
        dtype = torch.promote_types(q.dtype, torch.float32)
        out, lse = torch.empty_like(q), torch.empty(q.shape[:-1], dtype=dtype, device=q.device)
        for heads, first_row, _ in _groups(q, layout):
            queries, keys, values = (_blocks(x[:, heads], layout.block_size, dtype) for x in (q, k, v))
            out_grbd, lse_grb = torch.empty_like(queries), queries.new_empty(queries.shape[:-1])
            for rows, entries in _chunks(layout.lists, first_row, layout.num_rows, layout.mask_bits, len(queries)):
                weight, lse_grb[:, rows] = _softmax(_scores(queries[:, rows], keys, entries, scale))
                out_grbd[:, rows] = weight @ entries.gather(values)
            out[:, heads] = _tokens(out_grbd, q[:, heads])
            lse[:, heads] = _tokens(lse_grb.unsqueeze(-1), lse[:, heads].unsqueeze(-1)).squeeze(-1)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        layout, size, dtype = ctx.layout, ctx.layout.block_size, d_lse.dtype
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        with torch.autocast(q.device.type, enabled=False):
            for heads, first_row, first_column in _groups(q, layout):
                queries, keys, values, d_outs = (_blocks(x[:, heads], size, dtype) for x in (q, k, v, d_out))
                shift_grb = _blocks(d_lse[:, heads].unsqueeze(-1), size, dtype).squeeze(-1)
                gradients = _backward_of_group(
                    queries, keys, values, d_outs, shift_grb, layout, first_row, first_column, ctx.scale
                )
                for total, gradient in zip((dq, dk, dv), gradients, strict=True):
                    total[:, heads] = _tokens(gradient, total[:, heads])
        return dq, dk, dv, None, None


def _backward_of_group(
    queries: Tensor, keys: Tensor, values: Tensor, d_outs: Tensor, shift_grb: Tensor,
    layout: BlockSparse, first_row: int, first_column: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dq (g, R, B, d), dk and dv (g, C, B, d). shift_grb holds d_lse, and is overwritten."""
    lse_grb, groups, bits = torch.empty_like(shift_grb), len(queries), layout.mask_bits
    dq, dk, dv = torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)
    for rows, entries in _chunks(layout.lists, first_row, layout.num_rows, bits, groups):
        weight, lse_grb[:, rows] = _softmax(_scores(queries[:, rows], keys, entries, scale))
        d_weight = d_outs[:, rows] @ entries.gather(values).mT
        # Whatever reaches the lse of a query without keys, it may well be NaN, goes no further.
        d_lse = shift_grb[:, rows].masked_fill(lse_grb[:, rows] == -torch.inf, 0)
        shift = d_lse - (weight * d_weight).sum(dim=-1)
        shift_grb[:, rows] = shift
        d_score = _score_gradient(weight, d_weight.add_(shift.unsqueeze(-1)), scale)
        dq[:, rows] = d_score @ entries.gather(keys)
    # No score exceeds an lse of infinity: queries without keys add nothing to any key.
    lse_grb.masked_fill_(lse_grb == -torch.inf, torch.inf)
    for columns, entries in _chunks(layout.transposed, first_column, layout.num_columns, bits.mT, groups):
        score = _scores(keys[:, columns], queries, entries, scale)
        weight = score.sub_(entries.gather(lse_grb).unsqueeze(-2)).exp_()
        d_out = entries.gather(d_outs)
        dv[:, columns] = weight @ d_out
        d_weight = (values[:, columns] @ d_out.mT).add_(entries.gather(shift_grb).unsqueeze(-2))
        dk[:, columns] = _score_gradient(weight, d_weight, scale) @ entries.gather(queries)
    return dq, dk, dv


class _Entries:
    """The entries of a chunk of rows, (c, w) block numbers, and which of the (c, B, w B) pairs count, if not all do."""

    def __init__(self, blocks_cw: Tensor, hidden: Tensor | None) -> None:
        self.blocks_cw, self.hidden = blocks_cw, hidden

    def gather(self, x_grb: Tensor) -> Tensor:
        """(g, c, w B, ...): the blocks of x (g, R, B, ...) that each row lists, side by side."""
        chosen = x_grb.index_select(1, self.blocks_cw.flatten())
        rows, width = self.blocks_cw.shape
        return chosen.view(len(x_grb), rows, width * x_grb.shape[2], *x_grb.shape[3:])


def _groups(q: Tensor, layout: BlockSparse) -> Iterator[tuple[slice, int, int]]:
    """Heads of q that share lists, and where the rows and the columns of those begin."""
    if layout.num_heads is None:
        return iter([(slice(None), 0, 0)])
    heads = range(layout.num_heads)
    return ((slice(head, head + 1), head * layout.num_rows, head * layout.num_columns) for head in heads)


def _chunks(
    lists: BlockLists, first: int, num_rows: int, bits: Tensor, groups: int
) -> Iterator[tuple[Tensor, _Entries]]:
    """Rows from `first` on, counted from there, those with as many entries together, and their entries."""
    offsets, size = lists.offsets[first : first + num_rows + 1].long(), bits.shape[1]
    counts, order = offsets.diff().sort(stable=True)
    lengths = counts.tolist()
    limit = CHUNK_ELEMENTS.get(order.device.type, CHUNK_ELEMENTS["cuda"]) // (max(groups, 1) * size**2)
    # Behind the masks come one that hides all, for padding, and last, where WHOLE points, one that hides nothing.
    hidden_uij = torch.cat((~bits, bits.new_ones(1, size, size), bits.new_zeros(1, size, size)))
    start = 0
    while start < num_rows:
        # Rows of up to an eighth more entries may join the shortest: more padding, but fewer and larger products.
        stop = start + 1
        while stop < num_rows and lengths[stop] <= lengths[start] * 9 // 8:
            if (stop + 1 - start) * lengths[stop] > limit:
                break
            stop += 1
        rows = order[start:stop]
        yield rows, _entries(lists, offsets[rows], counts[start:stop], lengths[stop - 1], hidden_uij)
        start = stop


def _entries(lists: BlockLists, starts: Tensor, counts: Tensor, width: int, hidden_uij: Tensor) -> _Entries:
    slot = torch.arange(width, device=starts.device)
    real = slot < counts[:, None]
    entry = torch.where(real, starts[:, None] + slot, 0)
    if width == 0:
        return _Entries(entry, None)
    masks = lists.masks[entry].where(real, -2).long()
    blocks = lists.blocks[entry].where(real, 0)
    if bool((masks == WHOLE).all()):
        return _Entries(blocks, None)
    return _Entries(blocks, hidden_uij[masks].transpose(1, 2).flatten(2))


def _blocks(x_bhnd: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(g, R, B, d) from (b, h, N, d), zeros behind the end."""
    padded = F.pad(x_bhnd.to(dtype), (0, 0, 0, -x_bhnd.shape[2] % size))
    return padded.unflatten(2, (-1, size)).flatten(0, 1)


def _tokens(x_grbd: Tensor, like_bhnd: Tensor) -> Tensor:
    batch, heads, length = like_bhnd.shape[:3]
    return x_grbd.flatten(1, 2).unflatten(0, (batch, heads))[:, :, :length].to(like_bhnd.dtype)


def _scores(rows_gcbd: Tensor, others: Tensor, entries: _Entries, scale: float) -> Tensor:
    """(g, c, B, w B), -inf where a pair does not count."""
    score = (rows_gcbd * scale) @ entries.gather(others).mT
    return score if entries.hidden is None else score.masked_fill_(entries.hidden, -torch.inf)


def _softmax(score: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and lse of each row, which are 0 and -inf where nothing counts; `score` is overwritten."""
    if score.shape[-1] == 0:
        return score, score.new_full(score.shape[:-1], -torch.inf)
    top = score.amax(dim=-1, keepdim=True)
    top.masked_fill_(top == -torch.inf, 0)
    weight = score.sub_(top).exp_()
    total = weight.sum(dim=-1, keepdim=True)
    lse = top + total.log()
    return weight.div_(total.masked_fill_(total == 0, 1)), lse.squeeze(-1)


def _score_gradient(weight: Tensor, d_weight: Tensor, scale: float) -> Tensor:
    return d_weight.mul_(weight).mul_(scale)
