"""Find the fastest launch parameters on the GPU at hand and keep them: `python -m sparse_attention.tune`.

Takes a few seconds for each shape, most of them compilation. The result goes to $XDG_CACHE_HOME/sparse_attention
(~/.cache without it), where the library looks first. Sequence length is no part of it: it is tuned at one length that
fills the GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from .patterns import random
from .triton import HEAD_DIMS, MOST_SLOTS
from .triton.index_list.backward import backward
from .triton.index_list.forward import forward
from .triton.index_list.launch import (
    Tile,
    Tiles,
    cache_path,
    keeps_weights,
    piece_width,
    power_of_two,
    rule,
    store,
    tiles_for,
)

COMMON = ((64, 4), (64, 8), (64, 16), (64, 32), (64, 64), (32, 8), (128, 8), (768, 8))
"""(head_dim, slots) that are tuned when none are named."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Shape:
    """What is tuned for, and the size it is tuned at: as many heads as make a row of about 768."""

    dtype: torch.dtype
    head_dim: int
    slots: int
    tokens: int

    @property
    def key(self) -> tuple[int, int, int]:
        return self.dtype.itemsize, self.head_dim, self.slots

    @property
    def heads(self) -> int:
        return max(1, 768 // self.head_dim)


def candidates(shape: Shape, kernel: str) -> list[Tile]:
    """Tiles worth trying, around the one that fills a warp with one row of each of its queries."""
    width = piece_width(shape.head_dim, rule(*shape.key))
    rows = max(2, 32 * 16 // (width * shape.dtype.itemsize))
    if kernel == "by_key":
        sizes = ((2 * rows, 2, 1), (2 * rows, 2, 2), (4 * rows, 2, 1), (4 * rows, 2, 2), (2 * rows, 4, 1), (rows, 4, 1))
        return [Tile(*size) for size in sizes]
    sizes = ((rows, 8, 1), (rows // 2, 8, 1), (2 * rows, 8, 2), (rows, 4, 1), (2 * rows, 4, 1), (2 * rows, 4, 2))
    crowded = Tile(rows, 8, 1, registers=64 if kernel == "forward" else 96)
    widest = power_of_two(shape.slots)
    tiles = [replace(tile, slots=min(tile.slots, widest)) for tile in (*(Tile(*size) for size in sizes), crowded)]
    return list(dict.fromkeys(tiles))


def piece_candidates(shape: Shape) -> list[int]:
    return [64, 128] if shape.head_dim >= 128 else [rule(*shape.key).piece]


def search(shape: Shape, processes: int, report: Callable[[str], None] = print) -> Tiles:
    """The fastest tiles for a shape; one kernel after another, since none depends on another's."""
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        fastest = [_search_with_piece(shape, piece, pool) for piece in piece_candidates(shape)]
    present = tiles_for(shape.dtype, shape.head_dim, shape.slots, torch.device("cuda", torch.cuda.current_device()))
    before = time_step(shape, present)
    tiles, milliseconds = min((*fastest, (present, before)), key=lambda result: result[1])
    report(
        f"head_dim {shape.head_dim}, {shape.slots} slots: {milliseconds:.3f} ms a step, {before:.3f} before; {tiles}"
    )
    return tiles


def _search_with_piece(shape: Shape, piece: int, pool: ProcessPoolExecutor) -> tuple[Tiles, float]:
    tiles = replace(rule(*shape.key), piece=piece)
    trials = [(kernel, tile) for kernel in ("forward", "by_query", "by_key") for tile in candidates(shape, kernel)]
    list(pool.map(_compile, [shape] * len(trials), [replace(tiles, **{kernel: tile}) for kernel, tile in trials]))
    for kernel in ("forward", "by_query", "by_key"):
        times = {tile: time_step(shape, replace(tiles, **{kernel: tile})) for tile in candidates(shape, kernel)}
        tiles = replace(tiles, **{kernel: min(times, key=times.__getitem__)})
    return tiles, time_step(shape, tiles)


def _compile(shape: Shape, tiles: Tiles) -> None:
    """Leaves the compiled kernels in Triton's cache on disk, where the process that measures finds them."""
    _step(replace(shape, tokens=1024), tiles)()


def time_step(shape: Shape, tiles: Tiles, repeats: int = 9) -> float:
    """Median time of a forward and backward pass, in ms."""
    step = _step(shape, tiles)
    step()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start, end in marks:
        start.record()
        step()
        end.record()
    torch.cuda.synchronize()
    return sorted(start.elapsed_time(end) for start, end in marks)[repeats // 2]


def _step(shape: Shape, tiles: Tiles) -> Callable[[], None]:
    q, k, v, d_out, indices, lists = _inputs(shape)
    gradients = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    scale = shape.head_dim**-0.5
    kept = keeps_weights(shape.head_dim, shape.slots, shape.dtype)
    weights = torch.empty((*q.shape[:3], shape.slots), device=q.device) if kept else None

    def step() -> None:
        out, lse = forward(q, k, v, indices, scale, tiles, weights)
        backward(d_out, None, q, k, v, out, lse, weights, indices, lists, scale, tiles, gradients)

    return step


@cache
def _inputs(shape: Shape) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator("cuda").manual_seed(0)
    size = (1, shape.tokens, 3, shape.heads, shape.head_dim)
    fused = torch.randn(size, generator=generator, device="cuda").to(shape.dtype)
    q, k, v = fused.permute(2, 0, 3, 1, 4).unbind()
    d_out = torch.randn((size[:2] + size[3:]), generator=generator, device="cuda").to(shape.dtype).transpose(1, 2)
    layout = random(shape.tokens, keys_per_query=shape.slots).to("cuda")
    transposed = layout.transposed
    return q, k, v, d_out, layout.indices, (transposed.offsets, transposed.edges, transposed.order)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sparse_attention.tune", description=__doc__)
    parser.add_argument(
        "--shape", nargs=2, type=_count, action="append", metavar=("HEAD_DIM", "SLOTS"), help="may be repeated"
    )
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="16-bit dtypes share their parameters")
    parser.add_argument("--tokens", type=_count, default=100_000, help="sequence length to measure at")
    parser.add_argument(
        "--processes", type=_count, default=max(1, (os.cpu_count() or 2) - 2), help="that compile at once"
    )
    options = parser.parse_args(arguments)
    for head_dim, slots in options.shape or ():
        if not HEAD_DIMS[0] <= head_dim <= HEAD_DIMS[1] or slots > MOST_SLOTS:
            parser.error(
                f"--shape {head_dim} {slots}: the kernels take a head_dim from {HEAD_DIMS[0]} to {HEAD_DIMS[1]}, and "
                f"{MOST_SLOTS} slots at most"
            )
    if not torch.cuda.is_available():
        parser.exit(1, "tuning measures on a GPU, and torch sees none\n")
    for head_dim, slots in options.shape or COMMON:
        shape = Shape(DTYPES[options.dtype], head_dim, slots, options.tokens)
        store({shape.key: search(shape, options.processes)}, torch.device("cuda", torch.cuda.current_device()))
    print(f"kept in {cache_path(torch.cuda.get_device_name())}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)


if __name__ == "__main__":
    main()
