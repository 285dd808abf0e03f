"""What is local to a token, a tile of tokens at a time, so that what lies between exists for one tile only.

Slices and concatenations of torch would undo the saving: the backward of a slice fills a tensor of zeros as long as the
sequence, for each tile, and a concatenation holds all tiles twice. Here tiles are read from one tensor and written to
one tensor, in forward as in backward.

Legend: n rows, one for each token; t rows of a tile; features of any number of dims.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from longtag.memory.checkpointing import recomputed
from longtag.memory.even_tiles import tile_starts


def by_tiles(function: Callable[..., Tensor], *inputs: Tensor, tile: int | None, draws: bool) -> Tensor:
    """`function(*inputs)` of a function that treats each row by itself, recomputed in backward tile by tile.

    inputs: each (n, features); backward keeps these, and nothing else.
    tile:   rows at a time; None takes all of them at once.
    draws:  whether the function draws random numbers, as dropout does. It draws them tile by tile, and the same ones
            when it is run again.

    Returns (n, features of the function).
    """
    num_rows = inputs[0].shape[0]
    if tile is None or tile >= num_rows:
        return recomputed(function, *inputs, draws=draws)
    out = torch.empty(0)
    for start, *tiles in zip(tile_starts(num_rows, tile), *(each_tile(x, tile) for x in inputs), strict=True):
        part = recomputed(function, *tiles, draws=draws)
        if start == 0:
            out = part.new_empty((num_rows, *part.shape[1:]))
        out = _place(out, part, start)
        del tiles, part
    return out


def each_tile(x: Tensor, tile: int | None) -> Iterator[Tensor]:
    """(n, features) -> (t, features) one after the other, views whose gradients are gathered in one tensor.

    None gives x itself.
    """
    if tile is None or tile >= x.shape[0]:
        yield x
        return
    for start in tile_starts(x.shape[0], tile):
        if x.requires_grad and torch.is_grad_enabled():
            part, x = _Cut.apply(x, start, start + tile)  # pyright: ignore[reportGeneralTypeIssues]
            yield part
        else:
            yield x[start : start + tile]


class _Cut(torch.autograd.Function):
    """A tile, and the tensor again, of which the next tile is cut.

    The cuts form a chain: in backward the last one makes a gradient for the whole tensor, and each passes it on with
    its own rows filled in. Nobody else sees the tensors in between, so that this can be done in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.rows = x.shape, slice(start, stop)
        ctx.dtype, ctx.device = x.dtype, x.device
        return x[start:stop], x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_tile: Tensor | None, d_rest: Tensor | None) -> tuple[Tensor, None, None]:
        gradient = d_rest
        if gradient is None:
            gradient = torch.empty(ctx.shape, dtype=ctx.dtype, device=ctx.device)
            gradient[ctx.rows.stop :] = 0
        gradient[ctx.rows] = 0 if d_tile is None else d_tile
        return gradient, None, None


def _place(out: Tensor, part: Tensor, start: int) -> Tensor:
    if part.requires_grad and torch.is_grad_enabled():
        return _Place.apply(out, part, start)  # pyright: ignore[reportReturnType]
    out[start : start + part.shape[0]] = part
    return out


class _Place(torch.autograd.Function):
    """Write a tile into its rows; the gradient of the tile is a view of these rows."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, part: Tensor, start: int) -> Tensor:
        ctx.rows = slice(start, start + part.shape[0])
        ctx.mark_dirty(out)
        out[ctx.rows] = part
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, None]:
        return d_out, d_out[ctx.rows], None
