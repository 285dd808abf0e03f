"""Attention over listed keys, ours and its peers', in one process: `python -m benchmarks.attention`.

Writes a CSV, a table and a plot. Forward, and forward and backward (a step), in ms; memory beyond inputs, output and
gradients in MiB. The limit is the time to gather the rows alone: twice forward, six times for a step. Ours are timed as
CUDA graphs too, which leaves out what the host does for a call: that is what counts for short sequences.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import device_ms, gather_ms, median_ms, peak_mib
from benchmarks.peers import PEERS, Peer
from benchmarks.rows import read, write
from sparse_attention import IndexList

AGREEMENT = 0.02
"""Largest relative difference, in norm, from our results; bfloat16 loses 0.004 on its own."""

COLORS = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#009E73", "#777777")
"""Okabe and Ito's, which colour-blind readers can tell apart."""


@dataclass(frozen=True)
class Case:
    tokens: int
    slots: int
    heads: int
    head_dim: int
    hub: bool = False

    @property
    def pairs(self) -> int:
        return self.tokens * self.slots * self.heads * self.head_dim

    def layout(self) -> IndexList:
        generator = torch.Generator("cuda").manual_seed(0)
        size = (self.tokens, self.slots)
        indices = torch.randint(self.tokens, size, generator=generator, device="cuda", dtype=torch.int32)
        if self.hub:
            indices[:, 0] = 0
        return IndexList(indices)

    def tensors(self, fused: bool) -> list[Tensor]:
        """q, k, v (1, h, n, d), or one (1, n, 3, h, d), the same numbers for every peer; then the output's gradient."""
        generator = torch.Generator("cuda").manual_seed(1)
        size = (4, 1, self.heads, self.tokens, self.head_dim)
        *inputs, gradient = torch.randn(size, generator=generator, device="cuda", dtype=torch.bfloat16).unbind()
        if fused:
            return [torch.stack(inputs).permute(1, 3, 0, 2, 4).contiguous().requires_grad_(), gradient]
        return [*(x.contiguous().requires_grad_() for x in inputs), gradient.contiguous()]


@dataclass(frozen=True)
class Row:
    implementation: str
    tokens: int
    slots: int
    heads: int
    head_dim: int
    hub: bool
    forward_ms: float
    step_ms: float
    extra_mib: float
    forward_limit_ms: float
    step_limit_ms: float
    forward_device_ms: float
    step_device_ms: float
    device: str


def check_agreement(names: Sequence[str], case: Case) -> None:
    """Raise AssertionError unless all peers give our output and our gradients, within what bfloat16 can tell apart."""
    layout = case.layout()
    expected = _results(PEERS["sparse_attention"], case, layout)
    for name in names:
        if not PEERS[name].same_result:
            continue
        for ours, theirs in zip(expected, _results(PEERS[name], case, layout), strict=True):
            difference = float((ours.float() - theirs.float()).norm() / ours.float().norm())
            assert difference < AGREEMENT, f"{name} differs from ours by {difference:.3f}"


def _results(peer: Peer, case: Case, layout: IndexList) -> list[Tensor]:
    *inputs, gradient = case.tensors(peer.fused)
    out = peer.attend(*inputs, layout)
    gradients = torch.autograd.grad(out, inputs, gradient)
    return [out.detach(), *(gradients[0].permute(2, 0, 3, 1, 4) if peer.fused else gradients)]


def measure(name: str, case: Case, layout: IndexList, limit_ms: float) -> Row:
    peer = PEERS[name]
    *inputs, gradient = case.tensors(peer.fused)

    def forward() -> Tensor:
        return peer.attend(*inputs, layout)

    def step() -> None:
        for tensor in inputs:
            tensor.grad = None
        forward().backward(gradient)

    step()
    for tensor in inputs:
        tensor.grad = None
    extra = peak_mib(step) - sum(tensor.nbytes for tensor in (*inputs, gradient)) / 2**20
    with torch.no_grad():
        forward_ms = median_ms(forward)
        forward_device_ms = device_ms(forward) if peer.on_device else float("nan")
    step_ms, step_device_ms = median_ms(step), device_ms(step) if peer.on_device else float("nan")
    numbers = (forward_ms, step_ms, extra, 2 * limit_ms, 6 * limit_ms, forward_device_ms, step_device_ms)
    size = (case.tokens, case.slots, case.heads, case.head_dim, case.hub)
    return Row(name, *size, *numbers, torch.cuda.get_device_name())


def rows_of(case: Case, names: Sequence[str]) -> Iterator[Row]:
    layout = case.layout()
    limit_ms = gather_ms(case.tensors(False)[1].detach(), layout.indices)
    for name in names:
        if case.pairs > PEERS[name].most_pairs:
            continue
        try:
            yield measure(name, case, layout, limit_ms)
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory at {case}")
        torch.cuda.empty_cache()


def table(rows: Sequence[Row]) -> str:
    """Markdown; for each case its rows, with the time of a step over ours and over the limit."""
    columns = ["tokens", "keys", "heads x dim", "", "forward ms", "step ms", "as graphs", "over ours", "over the limit"]
    columns.append("extra MiB")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        ours = next(other for other in rows if _case(other) == _case(row) and other.implementation in PEERS)
        size = f"{row.tokens:,} | {row.slots}{' + hub' if row.hub else ''} | {row.heads} x {row.head_dim}"
        ratios = f"{row.step_ms / ours.step_ms:.1f} | {row.step_ms / row.step_limit_ms:.2f}"
        times = f"{row.forward_ms:.3f} | {row.step_ms:.3f} | {row.forward_device_ms:.3f}, {row.step_device_ms:.3f}"
        lines.append(f"| {size} | {row.implementation} | {times} | {ratios} | {row.extra_mib:.0f} |")
    return "\n".join(lines)


def _case(row: Row) -> tuple[int, int, int, int, bool]:
    return row.tokens, row.slots, row.heads, row.head_dim, row.hub


def plot(rows: Sequence[Row], path: Path) -> None:
    """Time of a step against the number of tokens, for the first shape and number of keys."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    chosen = [row for row in rows if _case(row)[1:] == (rows[0].slots, rows[0].heads, rows[0].head_dim, False)]
    figure, axes = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
    axes.set_prop_cycle(color=COLORS)
    for name in dict.fromkeys(row.implementation for row in chosen):
        points = sorted((row.tokens, row.step_ms) for row in chosen if row.implementation == name)
        (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=name)
        graphs = sorted((row.tokens, row.step_device_ms) for row in chosen if row.implementation == name)
        if not isnan(graphs[0][1]):
            axes.plot(*zip(*graphs, strict=True), linestyle="--", color=line.get_color(), label=f"{name}, CUDA graph")
    limits = sorted({(row.tokens, row.step_limit_ms) for row in chosen})
    axes.plot(*zip(*limits, strict=True), linestyle=":", color="black", label="limit: gathering rows alone")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel="forward and backward, ms")
    axes.set_title(f"{rows[0].slots} random keys a query, {rows[0].heads} heads x {rows[0].head_dim}, bfloat16")
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(path)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    shape: Callable[[str], tuple[int, ...]] = lambda text: tuple(map(int, text.split("x")))  # noqa: E731
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--slots", type=int, nargs="+", default=[8, 4, 16, 32, 64], help="keys of a query")
    parser.add_argument("--shapes", type=shape, nargs="+", default=[(12, 64), (6, 128), (1, 768)], metavar="HxD")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help="names, quoted")
    parser.add_argument("--hub", action="store_true", help="also with one key that every query sees")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for attention.csv and attention.svg")
    parser.add_argument("--append", action="store_true", help="keep the rows of this device in the CSV")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.exit(1, "this measures on a GPU, and torch sees none\n")

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    check_agreement(options.peers, Case(2000, 8, 4, 64))
    path = options.out / "attention.csv"
    there, device = read(path, Row), torch.cuda.get_device_name()
    elsewhere = [row for row in there if row.device != device]
    rows = [row for row in there if row.device == device] if options.append else []
    for (heads, head_dim), slots, tokens in product(options.shapes, options.slots, options.tokens):
        for hub in (False, True) if options.hub else (False,):
            measured = list(rows_of(Case(tokens, slots, heads, head_dim, hub), options.peers))
            rows += measured
            print(table(measured), flush=True)
            write([*elsewhere, *rows], path)
    plot(rows, options.out / "attention.svg")


if __name__ == "__main__":
    main()
