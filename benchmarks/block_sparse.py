"""Attention over blocks, ours and FlexAttention's, in one process: `python -m benchmarks.block_sparse`.

Writes a CSV and prints a table: forward, and forward and backward (a step), in ms; memory beyond inputs, output and
gradients in MiB; the rate that the listed blocks make of the time of a step, which counts the 9 matrix products that it
runs, masked pairs included. Both must agree before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measure import median_ms, peak_mib
from benchmarks.rows import replace_of_device
from sparse_attention import BlockSparse, Layout
from sparse_attention.ops import block_sparse_attention, fused_block_sparse_attention
from sparse_attention.patterns import bigbird, window

AGREEMENT = 0.02
"""Largest relative difference, in norm, of outputs and gradients; bfloat16 loses 0.004 on its own."""
WINDOW = 256


@dataclass(frozen=True)
class Case:
    """make: the layout of a number of tokens. rule: what FlexAttention applies inside partial blocks."""

    name: str
    make: Callable[[int], Layout]
    flex: bool
    rule: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None

    def layout(self, num_tokens: int) -> BlockSparse:
        layout = self.make(num_tokens)
        assert isinstance(layout, BlockSparse)
        return layout.to("cuda")


def _within_window(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return (query - key).abs() <= WINDOW


# FlexAttention refuses BigBird's blocks of 64 ("BLOCK_SIZE must be a multiple of 128" in torch 2.11).
CASES = [
    Case("window 256, blocks of 64", lambda n: window(n, window=WINDOW, layout="block_sparse"), flex=False),
    Case(
        "window 256, blocks of 128",
        lambda n: window(n, window=WINDOW, layout="block_sparse", block_size=128),
        flex=True,
        rule=_within_window,
    ),
    Case("BigBird, blocks of 128", lambda n: bigbird(n, block_size=128), flex=True),
    Case("BigBird, blocks of 64", lambda n: bigbird(n, block_size=64), flex=False),
]


@dataclass(frozen=True)
class Row:
    pattern: str
    implementation: str
    tokens: int
    heads: int
    head_dim: int
    forward_ms: float
    step_ms: float
    extra_mib: float
    step_tflops: float
    device: str


def tensors(num_tokens: int, heads: int, head_dim: int) -> list[Tensor]:
    """q, k, v and the gradient of the output, (1, h, n, d)."""
    generator = torch.Generator("cuda").manual_seed(1)
    size = (4, 1, heads, num_tokens, head_dim)
    *inputs, gradient = torch.randn(size, generator=generator, device="cuda").to(torch.bfloat16).unbind()
    return [*(x.contiguous().requires_grad_() for x in inputs), gradient.contiguous()]


def flex(layout: BlockSparse, case: Case) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention over the same blocks."""
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    tables = [table for masked in (True, False) for table in _table(layout, masked)]
    lengths = (layout.num_tokens, layout.num_keys)
    mask = BlockMask.from_kv_blocks(*tables, BLOCK_SIZE=layout.block_size, mask_mod=case.rule, seq_lengths=lengths)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)


def _table(layout: BlockSparse, masked: bool) -> tuple[Tensor, Tensor]:
    """How many partial (or whole) blocks each row lists, (1, 1, R), and which, (1, 1, R, C)."""
    chosen = (layout.lists.masks >= 0) == masked
    row, block = layout.lists.row_of_entry[chosen], layout.lists.blocks[chosen]
    counts = torch.bincount(row, minlength=layout.num_rows)
    table = torch.zeros(layout.num_rows, layout.num_columns, dtype=torch.int32, device=layout.device)
    table[row, torch.arange(row.numel(), device=row.device) - (counts.cumsum(0) - counts)[row]] = block
    return counts.int()[None, None], table[None, None]


def implementations(case: Case, layout: BlockSparse) -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    ours = lambda q, k, v: block_sparse_attention(q, k, v, layout, q.shape[-1] ** -0.5)[0]  # noqa: E731
    return {"sparse_attention": ours, **({"FlexAttention": flex(layout, case)} if case.flex else {})}


def check_agreement(case: Case, num_tokens: int = 4096) -> None:
    """Raise AssertionError unless all give our output and our gradients, within what bfloat16 can tell apart."""
    layout = case.layout(num_tokens)
    *inputs, gradient = tensors(num_tokens, 2, 64)
    results = {}
    for name, attend in implementations(case, layout).items():
        out = attend(*inputs)
        results[name] = [out.detach(), *torch.autograd.grad(out, inputs, gradient)]
    for name, theirs in results.items():
        for ours, other in zip(results["sparse_attention"], theirs, strict=True):
            difference = float((ours.float() - other.float()).norm() / ours.float().norm())
            assert difference < AGREEMENT, f"{case.name}: {name} differs from ours by {difference:.3f}"


def measure(case: Case, num_tokens: int, heads: int, head_dim: int) -> list[Row]:
    layout = case.layout(num_tokens)
    *inputs, gradient = tensors(num_tokens, heads, head_dim)
    operations = 9 * 2 * layout.num_entries * layout.block_size**2 * heads * head_dim
    rows = []
    for name, attend in implementations(case, layout).items():
        rows.append(_measure(name, case.name, attend, inputs, gradient, operations))
    if not case.flex:
        qkv = torch.stack([x.detach() for x in inputs]).permute(1, 3, 0, 2, 4).contiguous().requires_grad_()
        fused = lambda x: fused_block_sparse_attention(x, layout, head_dim**-0.5)[0]  # noqa: E731
        rows.append(_measure("sparse_attention, fused projection", case.name, fused, [qkv], gradient, operations))
    return rows


def _measure(
    name: str, pattern: str, attend: Callable[..., Tensor], inputs: list[Tensor], gradient: Tensor, operations: int
) -> Row:
    def step() -> None:
        for tensor in inputs:
            tensor.grad = None
        attend(*inputs).backward(gradient)

    step()
    for tensor in inputs:
        tensor.grad = None
    extra = peak_mib(step) - sum(tensor.nbytes for tensor in (*inputs, gradient)) / 2**20
    with torch.no_grad():
        forward_ms = median_ms(lambda: attend(*inputs))
    step_ms = median_ms(step)
    _, heads, num_tokens, head_dim = gradient.shape
    figures = (forward_ms, step_ms, extra, operations / step_ms / 1e9)
    return Row(pattern, name, num_tokens, heads, head_dim, *figures, torch.cuda.get_device_name())


def table(rows: Sequence[Row]) -> str:
    lines = ["| pattern | | forward ms | step ms | extra MiB | TFLOP/s |", "|---|---|---|---|---|---|"]
    for row in rows:
        times = f"{row.forward_ms:.3f} | {row.step_ms:.3f} | {row.extra_mib:.0f} | {row.step_tflops:.0f}"
        lines.append(f"| {row.pattern} | {row.implementation} | {times} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.block_sparse", description=__doc__)
    parser.add_argument("--tokens", type=int, default=98_304, help="a multiple of 128")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for block_sparse.csv")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.exit(1, "this measures on a GPU, and torch sees none\n")

    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    rows = []
    for case in CASES:
        check_agreement(case)
        rows += measure(case, options.tokens, options.heads, options.head_dim)
        torch.cuda.empty_cache()
    replace_of_device(rows, options.out / "block_sparse.csv")
    print(table(rows))


if __name__ == "__main__":
    main()
