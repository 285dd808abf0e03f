"""Time and memory of a function on the GPU, and the limit that gathering rows sets."""

# What `triton.jit` returns is typed as the kernel itself, not as something to launch.
# pyright: reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse_attention.triton.index_list.rows import dims_of, gather_rows

BUDGET_MS = 200
QUERIES = 16
"""Queries of a program that gathers, spread over two warps: the fastest of those tried on an H100."""


def median_ms(function: Callable[[], object]) -> float:
    """Median of as many calls as fit BUDGET_MS, 5 to 50, after two to warm up; the L2 cache is flushed in between.

    All calls are queued before the device is waited for, as in a training step: what the host does for a call counts
    only where the device runs out of work.
    """
    flush = torch.empty(2**26, dtype=torch.int32, device="cuda")
    function()
    (first,) = _times(function, flush, repeats=1)
    return median(_times(function, flush, repeats=max(5, min(50, int(BUDGET_MS / max(first, 1e-3))))))


def device_ms(function: Callable[[], object]) -> float:
    """The same of a CUDA graph of the call, so that the host has no part in it; NaN where it cannot be captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            function()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            function()
    except RuntimeError as error:
        print(f"no CUDA graph: {error}")
        torch.cuda.synchronize()
        return float("nan")
    return median_ms(graph.replay)


def _times(function: Callable[[], object], flush: Tensor, repeats: int) -> list[float]:
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(repeats)] for _ in range(2))
    for start, end in zip(starts, ends, strict=True):
        flush.zero_()
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)]


def peak_mib(function: Callable[[], object]) -> float:
    """How much more memory than before is in use at the worst moment of a call."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def gather_ms(rows: Tensor, indices: Tensor) -> float:
    """Time to read every listed row of `rows` (1, heads, keys, head_dim) once and do nothing with it.

    Attention reads two such streams forward and four backward. Rows of wide heads are read in pieces of 64.
    """
    heads, head_dim = rows.shape[1], rows.shape[3]
    num_queries, num_slots = indices.shape
    piece = min(64, head_dim)
    pieces = head_dim // piece
    out = torch.empty((heads * pieces, num_queries), device="cuda")
    grid = (triton.cdiv(num_queries, QUERIES), heads * pieces)
    return median_ms(
        lambda: _gather_kernel[grid](
            rows, indices, out, num_queries, rows.stride(1), rows.stride(2),
            PIECES=pieces, NUM_SLOTS=num_slots, BLOCK_D=piece, QUERIES=QUERIES, SLOTS=min(8, num_slots), num_warps=2,
        )
    )  # fmt: skip


@triton.jit
def _gather_kernel(
    row_ptr, indices_ptr, out_ptr, num_queries, stride_h, stride_n,
    PIECES: tl.constexpr, NUM_SLOTS: tl.constexpr, BLOCK_D: tl.constexpr, QUERIES: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(1)
    row_ptr += (program // PIECES).to(tl.int64) * stride_h
    dim_d = dims_of(program % PIECES, BLOCK_D)
    query_q = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    real_q = query_q < num_queries
    most_q = tl.full([QUERIES], float("-inf"), tl.float32)
    for first_slot in range(0, NUM_SLOTS, SLOTS):
        slot_s = first_slot + tl.arange(0, SLOTS)
        key_sq = tl.load(indices_ptr + query_q[None, :] * NUM_SLOTS + slot_s[:, None], mask=real_q[None, :], other=-1)
        row_sqd = gather_rows(row_ptr, key_sq, stride_n, dim_d, PIECES * BLOCK_D, BLOCK_D, QUERIES, False)
        most_q = tl.maximum(most_q, tl.max(tl.max(row_sqd, 0).to(tl.float32), 1))
    tl.store(out_ptr + program * num_queries + query_q, most_q, mask=real_q)
