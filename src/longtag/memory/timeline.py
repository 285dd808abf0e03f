"""Memory over one training step, from what was recorded of it: the curve, and what it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longtag.memory.step_marks import Part, Span, StepMarks

Curve = tuple[np.ndarray, np.ndarray]
"""Times in ns, ascending, and the bytes from each of them until the next: two (n,) int64 arrays."""


@dataclass(frozen=True)
class Timeline:
    """One step, or what there was of it.

    times_ns, allocated: the curve.
    gradients:           bytes of gradients at the same times.
    weights, optimizer_states: bytes, the same throughout; states that the first step makes are those of its end.
    phases, runs:        as `StepMarks` gives them.
    """

    times_ns: np.ndarray
    allocated: np.ndarray
    gradients: np.ndarray
    weights: int
    optimizer_states: int
    phases: Sequence[Span]
    runs: Sequence[Span]

    @property
    def peak(self) -> int:
        return int(self.allocated.max())

    @property
    def peak_ns(self) -> int:
        """When the peak is reached first."""
        return int(self.times_ns[self.allocated.argmax()])

    def where(self, time_ns: int) -> str:
        """What runs at a time, in words: "forward of block 2", "recomputation of block 3", "optimizer"."""
        running = [span for span in (*self.phases, *self.runs) if span.start_ns <= time_ns < span.end_ns]
        if not running:
            return "between phases"
        innermost = min(running, key=lambda span: span.end_ns - span.start_ns)
        action = "recomputation" if innermost.kind == "recompute" else innermost.kind
        return action if innermost.part is None else f"{action} of {name_of(innermost.part)}"


def name_of(part: Part) -> str:
    """Blocks are counted from 1 where people read of them."""
    return "head and loss" if part == "head" else f"block {part + 1}"


def build(
    curve: Curve,
    marks: StepMarks,
    *,
    weights: int,
    optimizer_states: int,
    gradients_before: int,
    gradients_of_parts: Mapping[Part, int],
    gradients_after: int,
) -> Timeline:
    """Put a curve and the marks of a step together.

    curve:              may begin before the step; what lies there is left out.
    gradients_before:   bytes at the beginning of the step, which stand until the mark zero_grad.
    gradients_of_parts: bytes that each part leaves when backward has done with it; of parts that were none, 0.
    gradients_after:    bytes at the end of the last backward.
    """
    start = marks.marks[0].time_ns
    grad_times, grads = _gradients(marks, gradients_before, gradients_of_parts, gradients_after)
    ends = [time for time in (marks.marks[-1].time_ns, curve[0][-1] if len(curve[0]) else 0) if time >= start]
    times = np.unique(np.concatenate((curve[0], grad_times, [start, *ends])))
    times = times[(times >= start) & (times <= max(ends))]
    end = int(times[-1])
    return Timeline(
        times_ns=times,
        allocated=_at(times, curve),
        gradients=_at(times, (grad_times, grads)),
        weights=weights,
        optimizer_states=optimizer_states,
        phases=marks.phases(end),
        runs=marks.runs(end),
    )


def curve_of_trace(trace: Sequence[Mapping[str, Any]], now: int) -> Curve:
    """The curve of a trace that torch's CUDA allocator kept (`torch.cuda.memory._snapshot()["device_traces"][device]`).

    now: bytes asked of the allocator, and not freed, when the snapshot was taken; the trace says only what changed.
    """
    signs = {"alloc": 1, "free_completed": -1}
    events = [
        (entry["time_us"] * 1000, signs[entry["action"]] * entry["size"]) for entry in trace if entry["action"] in signs
    ]
    times = np.array([time for time, _ in events], dtype=np.int64)
    sums = np.cumsum(np.array([change for _, change in events], dtype=np.int64))
    return times, sums + (now - (sums[-1] if len(sums) else 0))


def _gradients(marks: StepMarks, before: int, of_parts: Mapping[Part, int], after: int) -> Curve:
    times, grads, seen = [marks.marks[0].time_ns], [before], set[Part]()
    for mark in marks.marks[1:]:
        now = grads[-1]
        if mark.kind == "zero_grad":
            now = 0
        elif mark.kind == "done" and mark.part is not None and mark.part not in seen:
            # A further batch of the step adds to what the first one has left.
            seen.add(mark.part)
            now += of_parts.get(mark.part, 0)
        elif mark.kind == "optimizer":
            now = after
        if now != grads[-1]:
            times.append(mark.time_ns)
            grads.append(now)
    return np.array(times, dtype=np.int64), np.array(grads, dtype=np.int64)


def _at(times: np.ndarray, curve: Curve) -> np.ndarray:
    """The values of a curve at some times; before its first one, that one."""
    known, values = curve
    return values[np.maximum(np.searchsorted(known, times, side="right") - 1, 0)]
