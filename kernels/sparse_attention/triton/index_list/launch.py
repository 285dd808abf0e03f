"""Launch parameters of the index-list kernels: how much one program takes on.

They depend on the dtype's size, head_dim and the number of slots, never on the length of the sequence. `tiles_for`
takes the user's own, found by `python -m sparse_attention.tune`; else those of the table below; else a rule.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SLOTS_AT_ONCE = 8
"""Of a query's list, rows of k and of v that the registers of a program hold together."""


@dataclass(frozen=True)
class Tile:
    """rows: queries (or keys, by key) of a program. slots: edges of each held at once. registers: most of a thread."""

    rows: int
    slots: int
    warps: int = 1
    registers: int | None = None

    @property
    def options(self) -> dict[str, int]:
        """What Triton's compiler is told; a limit on registers is known to the one for NVIDIA alone."""
        if self.registers is None or torch.version.hip is not None:
            return {"num_warps": self.warps}
        return {"num_warps": self.warps, "maxnreg": self.registers}


@dataclass(frozen=True)
class Tiles:
    """One tile for each kernel. `piece`: head_dims wider than this go through in pieces of this width."""

    forward: Tile
    by_query: Tile
    by_key: Tile
    piece: int


def ceil_div(total: int, size: int) -> int:
    """How many parts of `size` cover `total`. Triton's own, made for kernels, takes 5 us a call on the host."""
    return -(-total // size)


def power_of_two(least: int) -> int:
    """The smallest power of two from `least` on."""
    return 1 << (least - 1).bit_length()


def num_pieces(head_dim: int, tiles: Tiles) -> int:
    """1 where a program takes whole rows; otherwise into how many pieces head_dim is cut."""
    return ceil_div(head_dim, piece_width(head_dim, tiles))


def piece_width(head_dim: int, tiles: Tiles) -> int:
    """Width of the tile that holds a row, or a piece of it: a power of two."""
    return min(tiles.piece, power_of_two(head_dim))


def keeps_weights(head_dim: int, num_slots: int, dtype: torch.dtype) -> bool:
    """Whether forward leaves the softmax weights for backward: where they take no more room than a row of q, or half of
    one where it takes passes for it."""
    row = head_dim * dtype.itemsize
    return 4 * num_slots <= (row if num_slots <= SLOTS_AT_ONCE else row // 2)


def takes_passes(head_dim: int, num_slots: int, tiles: Tiles, keeps: bool) -> bool:
    """Whether scores, softmax and weighted sums are kernels of their own, those of `wide`: for heads in pieces, and for
    weights to keep of more slots than a program holds at once."""
    return num_pieces(head_dim, tiles) > 1 or (keeps and num_slots > SLOTS_AT_ONCE)


def head_stride(table: Tensor, dims: int) -> int:
    """Elements from one head's table of `dims` dims to the next; 0 where all heads share one."""
    return table.stride(0) if table.dim() > dims else 0


def is_far(x: Tensor) -> bool:
    """Whether elements of one head of x (b, h, n, d) lie 2^31 or more apart, so that offsets need 64 bits."""
    return x.shape[2] * x.stride(2) >= 2**31


CURATED: dict[tuple[int, int, int], Tiles] = {
    (2, 64, 8): Tiles(Tile(4, 8, registers=64), Tile(8, 8, 2), Tile(8, 2, 2), piece=64),
    (2, 64, 16): Tiles(Tile(4, 4), Tile(8, 8, 2), Tile(8, 2, 2), piece=64),
    (2, 80, 8): Tiles(Tile(4, 8, 2), Tile(4, 8, 2), Tile(8, 2, 2), piece=128),
    (2, 96, 8): Tiles(Tile(8, 4), Tile(8, 8, 2), Tile(8, 2, 2), piece=64),
    (2, 128, 8): Tiles(Tile(8, 4), Tile(8, 8, 2), Tile(8, 2, 2), piece=64),
    (2, 768, 8): Tiles(Tile(8, 4), Tile(8, 8, 2), Tile(8, 2, 2), piece=64),
}
"""(bytes of an element, head_dim, slots) -> the fastest found on an NVIDIA H100 or H200."""


def tiles_for(dtype: torch.dtype, head_dim: int, num_slots: int, device: torch.device) -> Tiles:
    """Launch parameters for these shapes on this device."""
    key = (dtype.itemsize, head_dim, num_slots)
    tuned = _tuned_for(_device_name(device)).get(key)
    return tuned or CURATED.get(key) or rule(*key)


@cache
def rule(itemsize: int, head_dim: int, num_slots: int) -> Tiles:
    """A warp takes as many queries as it loads rows at once, 8 rows of each."""
    piece = 64 if head_dim >= 128 else power_of_two(head_dim)
    rows = max(2, 32 * 16 // (piece * itemsize))
    slots = min(8, power_of_two(num_slots))
    queries = Tile(max(1, rows * 8 // slots), slots)
    return Tiles(queries, queries, Tile(2 * rows, 2), piece)


def cache_path(device_name: str) -> Path:
    """Where the parameters tuned on a device of this name are kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "sparse_attention" / f"{device_name.replace(' ', '-').replace('/', '-')}.json"


def store(tuned: dict[tuple[int, int, int], Tiles], device: torch.device) -> Path:
    """Add to the parameters tuned on this device, replace those for the same shapes, and return where they are kept."""
    name = _device_name(device)
    path = cache_path(name)
    merged = {**_tuned_for(name), **tuned}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps({" ".join(map(str, key)): asdict(tiles) for key, tiles in merged.items()}, indent=1))
    partial.replace(path)
    _tuned_for.cache_clear()
    return path


@cache
def _tuned_for(device_name: str) -> dict[tuple[int, int, int], Tiles]:
    try:
        entries = json.loads(cache_path(device_name).read_text())
        return {tuple(map(int, key.split())): _tiles(tiles) for key, tiles in entries.items()}  # pyright: ignore
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        # Nothing tuned here yet, or by another version of the library: the table and the rule are always right.
        return {}


def _tiles(entry: dict[str, Any]) -> Tiles:
    tiles = {name: Tile(**entry[name]) for name in ("forward", "by_query", "by_key")}
    return Tiles(**tiles, piece=entry["piece"])


@cache
def _device_name(device: torch.device) -> str:
    return "cpu" if device.type == "cpu" else torch.get_device_module(device).get_device_name(device)
