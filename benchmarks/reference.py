"""The reference implementation on the CPU: `python -m benchmarks.reference`.

Time of forward and backward in float32, and peak resident memory beyond inputs, output and gradients.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median

import torch

from longtag.memory.peak import peak_gib, reset_peak
from sparse_attention import Layout, patterns, sparse_attention

CPU = torch.device("cpu")


def measure(heads: int, head_dim: int, layout: Layout, repeats: int) -> str:
    """One line: the median and the extremes of the time in s, and the memory in GiB."""
    size = (1, heads, layout.num_tokens, head_dim)
    q, k, v = (torch.randn(size, requires_grad=True) for _ in range(3))
    gradient = torch.randn(size)

    def step() -> None:
        torch.autograd.grad(sparse_attention(q, k, v, layout, implementation="reference"), (q, k, v), gradient)

    step()  # lists by key are built once for a pattern
    reset_peak(CPU)
    start_gib, seconds = peak_gib(CPU)["memory/peak_rss_gib"], []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    results_gib = 4 * gradient.nbytes / 2**30
    extra_gib = max(0.0, peak_gib(CPU)["memory/peak_rss_gib"] - start_gib - results_gib)
    return f"{median(seconds):.2f} s (from {min(seconds):.2f} to {max(seconds):.2f}), {extra_gib:.2f} GiB"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.tokens:,} tokens")
    random = patterns.random(options.tokens, keys_per_query=8)
    print("8 random keys, 12 heads x 64:", measure(12, 64, random, options.repeats), flush=True)
    dilated = patterns.dilated(options.tokens, window=4, dilations=(3, 27))
    print("17 dilated keys, 2 heads x 32:", measure(2, 32, dilated, options.repeats), flush=True)


if __name__ == "__main__":
    main()
