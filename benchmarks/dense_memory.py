"""The memory table of Rabe and Staats (2021), measured beside theirs: `python -m benchmarks.dense_memory`.

One head of 64 in float32. Memory is the overhead in bytes: the most in use at once, less inputs, output and gradients.
On a GPU torch's allocator counts it. On a CPU it is added up from every allocation that torch's profiler records, down
to those inside of operators; what libraries keep for themselves is not seen. Also times both, and writes a CSV.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.rows import read, write
from sparse_attention import Dense, Layout, patterns, sparse_attention

Call = Callable[[], object]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

HEAD_DIM = 64
COMPARED_AT = 2**14
TOKENS = [2**exponent for exponent in range(8, 21, 2)]
MODES = ("inference", "gradient")
BUDGET_S = 1.0
"""Calls are repeated for so long; a single one may take longer."""
LONG_S = 5.0
"""A call that takes so long while its memory is measured is timed by that."""

K, M, G = 2**10, 2**20, 2**30
PAPER: dict[tuple[str, str], list[float]] = {
    ("standard", "inference"): [270 * K, 4 * M, 64 * M, 1 * G],
    ("chunked", "inference"): [270 * K, 4 * M, 16 * M, 17 * M, 21 * M, 64 * M, 256 * M],
    ("standard", "gradient"): [532 * K, 8 * M, 128 * M, 2 * G],
    ("chunked", "gradient"): [532 * K, 8 * M, 41 * M, 64 * M, 257 * M, 1 * G, 4 * G],
}
"""Overhead of standard attention and of their own at TOKENS, on a TPUv2 (arXiv:2112.05682, its two tables)."""
PAPER_FACTORS = {"inference": 59, "gradient": 32}
PAPER_SPEED = {"inference": -0.13, "gradient": -0.35}
"""Their slowest, against standard attention."""

PATTERNS: dict[str, Callable[[int], Layout]] = {
    "8 random keys": partial(patterns.random, keys_per_query=8),
    "window of 256 each side": partial(patterns.window, window=256),
    "Longformer, 256 each side, 2 global": partial(patterns.longformer, window=256, num_global=2),
    "LogSparse, 4 each side": partial(patterns.logsparse, window=4),
    "BigBird, blocks of 64": patterns.bigbird,
}


@dataclass(frozen=True)
class Row:
    """layout_bytes: what the pattern itself takes, once for all layers and steps; not part of the overhead."""

    attention: str
    mode: str
    tokens: int
    overhead_bytes: int
    layout_bytes: int
    seconds: float
    device: str


def standard(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as textbooks write it, with all scores in memory."""
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1) @ v


def build(name: str, tokens: int, device: torch.device) -> tuple[Attention, Layout | None]:
    if name == "standard":
        return standard, None
    if name in PATTERNS:
        layout = PATTERNS[name](tokens).to(device)
        return partial(sparse_attention, pattern=layout), layout
    return partial(sparse_attention, pattern=Dense(tokens), implementation=name), None


def in_use(call: Call, device: torch.device) -> tuple[int, int]:
    """Bytes beyond those of before: at the worst moment of a call, and after it, while its result is held."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        peak, after = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            result = call()
        peak = after = 0
        for change in allocations(profiled):
            after += change
            peak = max(peak, after)
    del result
    return peak, after


def allocations(profiled: profile) -> Iterator[int]:
    """Bytes taken, or given back if below 0, in the order of time."""
    assert profiled.profiler is not None
    results: Any = profiled.profiler.kineto_results
    events = [event for event in results.events() if event.name() == "[memory]"]
    return (event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))


def overhead_bytes(call: Call, device: torch.device) -> int:
    """Most bytes in use at once by a call that returns all that it is meant to leave behind."""
    peak, after = in_use(call, device)
    return peak - after


def seconds(call: Call, device: torch.device) -> float:
    """Median of as many calls as fit BUDGET_S, from 1 to 20."""
    times: list[float] = []
    while not times or (sum(times) < BUDGET_S and len(times) < 20):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times)


def call_of(mode: str, attend: Attention, tokens: int, device: torch.device) -> Call:
    """Inference returns the output; gradient returns it with the gradients of q, k and v."""
    q, k, v, d_out = torch.randn(4, 1, 1, tokens, HEAD_DIM, device=device).unbind()
    if mode == "inference":
        return torch.no_grad()(lambda: attend(q, k, v))
    leaves = [x.requires_grad_() for x in (q, k, v)]

    def step() -> tuple[Tensor, ...]:
        out = attend(q, k, v)
        return out.detach(), *torch.autograd.grad(out, leaves, d_out)

    return step


def measure(name: str, tokens: int, device: torch.device) -> Iterator[Row]:
    attend, layout = build(name, tokens, device)
    for mode in MODES:
        call = call_of(mode, attend, tokens, device)
        if layout is not None:
            layout.build()
        start = time.perf_counter()
        overhead = overhead_bytes(call, device)
        took = time.perf_counter() - start
        took = took if took > LONG_S else seconds(call, device)
        yield Row(name, mode, tokens, overhead, tensor_bytes(layout), took, name_of(device))


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def tensor_bytes(thing: object) -> int:
    """Of all tensors that an object holds, itself or in its parts."""
    if isinstance(thing, Tensor):
        return thing.nbytes
    parts = thing if isinstance(thing, list | tuple) else getattr(thing, "__dict__", {}).values()
    return sum(tensor_bytes(part) for part in parts)


def rows_of(names: Sequence[str], tokens: Sequence[int], device: torch.device) -> Iterator[Row]:
    for name, mode in product(names, MODES):
        # So that what libraries allocate once, and keep, is in nobody's figures.
        call_of(mode, build(name, 256, device)[0], 256, device)()
    for count, name in product(tokens, names):
        try:
            yield from measure(name, count, device)
        except torch.OutOfMemoryError:
            print(f"{name}: out of memory at {count:,} tokens")
        except ValueError as refusal:
            print(f"{name}: {refusal}")
        if device.type == "cuda":
            torch.cuda.empty_cache()


def tables(rows: Sequence[Row]) -> str:
    """Markdown: for each mode the overhead beside the paper's, then the time."""
    names, counts = (list(dict.fromkeys(getattr(row, key) for row in rows)) for key in ("attention", "tokens"))
    lines = []
    for mode in MODES:
        found = {(row.attention, row.tokens): row for row in rows if row.mode == mode}
        lines += [f"| {mode}, tokens | " + " | ".join(f"{count:,}" for count in counts) + " |"]
        lines += ["|---" * (len(counts) + 1) + "|"]
        for name in ("standard", "chunked"):
            theirs = dict(zip(TOKENS, PAPER[name, mode], strict=False))
            lines += [_line(f"{name}, in the paper", (readable(theirs[n]) if n in theirs else "" for n in counts))]
        cells = {key: readable(row.overhead_bytes) for key, row in found.items()}
        lines += [_line(name, (cells.get((name, n), "") for n in counts)) for name in names]
        cells = {key: f"{row.seconds * 1000:,.{2 if row.seconds < 0.1 else 0}f} ms" for key, row in found.items()}
        lines += [_line(f"{name}, time", (cells.get((name, n), "") for n in counts)) for name in names]
        cells = {key: readable(row.layout_bytes) for key, row in found.items() if row.layout_bytes}
        patterned = [name for name in names if any(key[0] == name for key in cells)]
        lines += [_line(f"{name}, its layout", (cells.get((name, n), "") for n in counts)) for name in patterned]
        lines += [""]
    return "\n".join(lines)


def _line(name: str, cells: Iterable[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def readable(size: float) -> str:
    """As the paper writes it: 270K, 4.0M, 1.0G, in powers of 1024."""
    unit, letter = next((pair for pair in ((G, "G"), (M, "M")) if size >= pair[0]), (K, "K"))
    number = size / unit
    return f"{number:.1f}{letter}" if number < 10 else f"{number:.0f}{letter}"


def factors(rows: Sequence[Row]) -> str:
    """How far each attention is below standard attention at COMPARED_AT tokens, measured here and in the paper."""
    lines = []
    for mode in MODES:
        found = {row.attention: row for row in rows if (row.mode, row.tokens) == (mode, COMPARED_AT)}
        base = found.pop("standard", None)
        published = PAPER["standard", mode][TOKENS.index(COMPARED_AT)]
        for name, row in found.items():
            text = f"- {mode}, {name}: {_times_below(published, row)} the paper's standard attention"
            if base is not None:
                below, speed = _times_below(base.overhead_bytes, row), base.seconds / row.seconds - 1
                text += f", {below} the one measured here; speed {speed:+.0%} against that"
            lines.append(text)
        lines.append(f"- {mode}, the paper's chunked: {PAPER_FACTORS[mode]}x; speed {PAPER_SPEED[mode]:+.0%} at worst")
    return "\n".join((f"At {COMPARED_AT:,} tokens:", *lines))


def _times_below(size: float, row: Row) -> str:
    return f"{size / row.overhead_bytes:,.1f}x below" if row.overhead_bytes else "without any overhead, below"


def main(arguments: Sequence[str] | None = None) -> None:
    names = ["standard", "chunked", "sdpa", *PATTERNS]
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense_memory", description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS if on_gpu else TOKENS[:4])
    parser.add_argument("--attentions", nargs="+", choices=names, default=names, metavar="NAME", help="names, quoted")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for dense_memory.csv")
    parser.add_argument("--append", action="store_true", help="keep the rows of this device in the CSV")
    options = parser.parse_args(arguments)

    device = torch.device("cuda" if on_gpu else "cpu")
    print(f"{name_of(device)}, torch {torch.__version__}")
    path = options.out / "dense_memory.csv"
    there = read(path, Row)
    elsewhere = [row for row in there if row.device != name_of(device)]
    rows = [row for row in there if row.device == name_of(device)] if options.append else []
    for row in rows_of(options.attentions, options.tokens, device):
        rows.append(row)
        print(f"{row.attention}, {row.mode}, {row.tokens:,}: {readable(row.overhead_bytes)}", flush=True)
        write([*elsewhere, *rows], path)
    print(f"\n{tables(rows)}\n{factors(rows)}")


if __name__ == "__main__":
    main()
