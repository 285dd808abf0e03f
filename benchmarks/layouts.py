"""One pattern in all layouts that it may be stored in, in one process: `python -m benchmarks.layouts`.

12 heads of 64 over one fused projection, bfloat16. Writes a CSV and prints a table: forward, and forward and backward
(a step), in ms, and memory beyond inputs, output and gradients in MiB. All must agree before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import median_ms, peak_mib
from benchmarks.rows import replace_of_device
from sparse_attention import Layout, patterns, sparse_self_attention

AGREEMENT = 0.02
"""Largest relative difference, in norm, of outputs and gradients; bfloat16 loses 0.004 on its own."""
HEADS, HEAD_DIM = 12, 64

PATTERNS: dict[str, Callable[..., Layout]] = {
    "64 hubs, window 16": partial(patterns.hubs, num_hubs=64, window=16),
    "128 hubs, window 64": partial(patterns.hubs, num_hubs=128, window=64),
    "window 16, 8 random keys, 8 hubs": partial(
        patterns.union,
        patterns=[
            partial(patterns.window, window=16),
            partial(patterns.random, keys_per_query=8),
            partial(patterns.hubs, num_hubs=8, window=0),
        ],
    ),
    "8 random keys, 2 hubs": partial(
        patterns.union,
        patterns=[partial(patterns.random, keys_per_query=8), partial(patterns.hubs, num_hubs=2, window=0)],
    ),
}
LAYOUTS = ("auto", "index_list", "block_sparse")


@dataclass(frozen=True)
class Row:
    """stored: the class of the layout."""

    pattern: str
    layout: str
    stored: str
    tokens: int
    forward_ms: float
    step_ms: float
    extra_mib: float
    device: str


def measure(name: str, num_tokens: int) -> list[Row]:
    generator = torch.Generator("cuda").manual_seed(1)
    qkv = torch.randn((1, num_tokens, 3, HEADS, HEAD_DIM), generator=generator, device="cuda").bfloat16()
    d_out = torch.randn((1, HEADS, num_tokens, HEAD_DIM), generator=generator, device="cuda").bfloat16()
    qkv.requires_grad_()
    rows, first = [], None
    for choice in LAYOUTS:
        layout = PATTERNS[name](num_tokens, layout=choice).to("cuda")
        attend = partial(sparse_self_attention, qkv, layout)
        results = _step(attend, qkv, d_out)
        first = first or results
        for ours, other in zip(first, results, strict=True):
            difference = float((ours.float() - other.float()).norm() / ours.float().norm())
            assert difference < AGREEMENT, f"{name}: {choice} differs from {LAYOUTS[0]} by {difference:.3f}"
        del results
        step = partial(_step, attend, qkv, d_out)
        extra = peak_mib(step) - (qkv.nbytes + d_out.nbytes) / 2**20
        figures = (median_ms(torch.no_grad()(attend)), median_ms(step), extra)
        rows.append(Row(name, choice, type(layout).__name__, num_tokens, *figures, torch.cuda.get_device_name()))
    return rows


def _step(attend: Callable[[], Tensor], qkv: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
    out = attend()
    return out.detach(), torch.autograd.grad(out, qkv, d_out)[0]


def table(rows: Sequence[Row]) -> str:
    lines = ["| pattern | layout | | forward ms | step ms | extra MiB |", "|---|---|---|---|---|---|"]
    for row in rows:
        times = f"{row.forward_ms:.2f} | {row.step_ms:.2f} | {row.extra_mib:.0f}"
        lines.append(f"| {row.pattern} | {row.layout} | {row.stored} | {times} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts", description=__doc__)
    parser.add_argument("--tokens", type=int, default=98_304)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for layouts.csv")
    options = parser.parse_args(arguments)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    rows = [row for name in PATTERNS for row in measure(name, options.tokens)]
    replace_of_device(rows, options.out / "layouts.csv")
    print(table(rows))


if __name__ == "__main__":
    main()
