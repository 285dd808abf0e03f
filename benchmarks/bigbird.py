"""BigBird's attention over the same blocks, Hugging Face's and ours, in one process: `python -m benchmarks.bigbird`.

Needs the extra `peers`. Forward, and forward and backward (a step), in ms; what autograd keeps for backward beyond q, k
and v, and the peak of a step beyond inputs, output and gradients, in MiB. On a GPU times are medians and the peak is
the allocator's. On a CPU times are processor time of one thread, the least of three, which other work on the machine
hardly touches; the peak is that of the tensors alive, which leaves out what a library takes inside one operation.
Single random keys are there for comparison: as many as the question has, and as many as most queries see in blocks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import pad

from benchmarks.hugging_face import BigBird
from sparse_attention import patterns, sparse_attention
from sparse_attention.layouts import EMPTY, Layout
from sparse_attention.patterns.bigbird import with_random_blocks

AGREEMENT = {torch.float32: 1e-5, torch.bfloat16: 0.02}
"""Largest relative difference, in norm, of outputs and gradients; bfloat16 loses 0.004 on its own."""

OTHER_RULES = (1024, 3072, 4096)
"""Lengths at which Hugging Face draws blocks in another way, which is not timed here."""

CPU_REPEATS = 3
QUESTION_KEYS = 8
MIB = 2**20

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    tokens: int
    heads: int
    head_dim: int
    block_size: int
    num_random: int
    device: str

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    def peer(self, given: Tensor | None = None) -> BigBird:
        return BigBird(
            heads=self.heads,
            head_dim=self.head_dim,
            block_size=self.block_size,
            num_random=self.num_random,
            given=given,
        )

    def tensors(self) -> list[Tensor]:
        """q, k, v and the output's gradient, (1, h, n, d), the first three as views of (1, n, h, d) projections."""
        generator = torch.Generator(self.device).manual_seed(0)
        size = (4, 1, self.tokens, self.heads, self.head_dim)
        drawn = torch.randn(size, generator=generator, device=self.device, dtype=self.dtype)
        q, k, v, gradient = (x.clone().transpose(1, 2) for x in drawn)
        return [q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), gradient.contiguous()]

    def attend_over(self, layout: Layout) -> Attention:
        layout = layout.to(self.device)
        return lambda q, k, v: sparse_attention(q, k, v, layout)


@dataclass(frozen=True)
class Row:
    name: str
    tokens: int
    keys: float
    forward_ms: float
    step_ms: float
    kept_mib: float
    peak_mib: float


def contenders(case: Case) -> Iterator[tuple[str, float, Attention]]:
    """Name, keys of a query and function, one after the other, so that one's tensors are gone before the next."""
    blocks = torch.stack([torch.as_tensor(of_head) for of_head in case.peer().draw(case.tokens)]).int()
    # Ours lists the first and the last row as well, which see everything and need no random block.
    layout = with_random_blocks(
        case.tokens, pad(blocks, (0, 0, 1, 1), value=EMPTY), block_size=case.block_size, num_window=3, num_global=2
    )
    keys = layout.keys_per_query
    ours = case.attend_over(layout)
    peer = case.peer(given=blocks)
    check_agreement(ours, peer, case)
    yield "sparse_attention, the same blocks", keys, ours
    yield "Hugging Face, blocks given", keys, peer
    yield "Hugging Face, blocks drawn at each forward", keys, case.peer()
    for count in (QUESTION_KEYS, (5 + case.num_random) * case.block_size):
        single = patterns.random(case.tokens, keys_per_query=count)
        yield "sparse_attention, random single keys", count, case.attend_over(single)


def check_agreement(ours: Attention, theirs: Attention, case: Case) -> None:
    """Raise AssertionError unless both give the same output and gradients, or theirs does not fit into memory."""
    *inputs, gradient = case.tensors()

    def results_of(attend: Attention) -> list[Tensor]:
        out = attend(*inputs)
        return [out.detach(), *torch.autograd.grad(out, inputs, gradient)]

    expected = results_of(ours)
    try:
        results = results_of(theirs)
    except torch.OutOfMemoryError:
        print(f"agreement at {case.tokens:,} tokens: not checked, Hugging Face's is out of memory")
        return
    for name, our, their in zip(("out", "dq", "dk", "dv"), expected, results, strict=True):
        difference = float((our.double() - their.double()).norm() / our.double().norm())
        assert difference < AGREEMENT[case.dtype], f"{name} differs by {difference:.1e} at {case.tokens} tokens"
    print(f"agreement at {case.tokens:,} tokens: output and gradients are the same")


def measure(name: str, keys: float, attend: Attention, case: Case) -> Row:
    *inputs, gradient = case.tensors()

    def forward() -> Tensor:
        return attend(*inputs)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(forward(), inputs, gradient)

    step()
    results = sum(tensor.nbytes for tensor in (*inputs, gradient))  # the output and three gradients are as large
    peak = (_peak_bytes(step, case.device) - results) / MIB
    kept = _kept_bytes(forward, inputs) / MIB
    with torch.no_grad():
        forward_ms = _ms(forward, case.device)
    return Row(name, case.tokens, keys, forward_ms, _ms(step, case.device), kept, peak)


def _ms(function: Callable[[], object], device: str) -> float:
    if device == "cuda":
        from benchmarks.measure import median_ms

        return median_ms(function)
    return min(_seconds(function) for _ in range(CPU_REPEATS)) * 1e3


def _seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _peak_bytes(function: Callable[[], object], device: str) -> float:
    if device == "cuda":
        from benchmarks.measure import peak_mib

        return peak_mib(function) * MIB
    from torch.distributed._tools.mem_tracker import MemTracker

    with MemTracker() as tracker:
        function()
    return tracker.get_tracker_snapshot("peak")[torch.device(device)]["Total"]


def _kept_bytes(forward: Callable[[], Tensor], inputs: Sequence[Tensor]) -> int:
    """Storage of all tensors saved for backward, but for the inputs'."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    assert out.requires_grad
    return sum(size for pointer, size in storages.items() if pointer not in {x.data_ptr() for x in inputs})


def table(rows: Sequence[Row]) -> str:
    """Markdown, a line a row."""
    columns = ["tokens", "", "keys a query", "forward ms", "step ms", "kept for backward MiB", "peak MiB"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        times = f"{row.forward_ms:,.2f} | {row.step_ms:,.2f}"
        memory = f"{row.kept_mib:,.0f} | {row.peak_mib:,.0f}"
        lines.append(f"| {row.tokens:,} | {row.name} | {row.keys:,.0f} | {times} | {memory} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = [16_384, 32_768, 98_304] if device == "cuda" else [2048, 8192]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bigbird", description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=lengths, help="multiples of the block size")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=64)
    parser.add_argument("--random", type=int, default=3, help="random blocks of a row")
    options = parser.parse_args(arguments)
    shortest = (2 * options.random + 6) * options.block_size
    for tokens in options.tokens:
        if tokens in OTHER_RULES or tokens % options.block_size or tokens < shortest:
            others = ", ".join(map(str, OTHER_RULES))
            parser.error(f"--tokens {tokens}: expected a multiple of --block-size from {shortest} up, but not {others}")

    import transformers  # pyright: ignore[reportMissingImports]

    if device == "cpu":
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, one thread"
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}", flush=True)
    for tokens in options.tokens:
        case = Case(tokens, options.heads, options.head_dim, options.block_size, options.random, device)
        print(f"drawing blocks for {tokens:,} tokens: {_seconds(lambda c=case: c.peer().draw(c.tokens)) * 1e3:,.0f} ms")
        rows = []
        for name, keys, attend in contenders(case):
            try:
                rows.append(measure(name, keys, attend, case))
            except torch.OutOfMemoryError:
                print(f"{name}: out of memory at {tokens:,} tokens")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
