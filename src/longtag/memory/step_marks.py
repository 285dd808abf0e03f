"""When a training step began what: its phases, and the runs of blocks in them."""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

Phase = Literal["forward", "backward", "optimizer"]
Kind = Literal[Phase, "end", "zero_grad", "enter", "leave", "done"]
"""A phase or `end`: it begins. zero_grad: the gradients of the step before are freed. enter, leave: around a run of a
part in forward, or once more in backward. done: backward has done with a part."""

Part = int | Literal["head"]
"""A block, counted from 0; or the head, with the loss."""


class Mark(NamedTuple):
    time_ns: int
    kind: Kind
    part: Part | None = None


class Span(NamedTuple):
    """A stretch of a step: a phase, where `part` is None, or a run of a part. Times in ns."""

    kind: Phase | Literal["recompute"]
    part: Part | None
    start_ns: int
    end_ns: int


class StepMarks:
    """The marks of one step, in order, at times of the host's clock, which allocator traces go by as well.

    Args:
        wait: called before each mark. Waiting for the device makes spans as long as the work in them takes.
    """

    def __init__(self, wait: Callable[[], object] = lambda: None) -> None:
        self._wait = wait
        self.marks: list[Mark] = []

    def add(self, kind: Kind, part: Part | None = None) -> None:
        self._wait()
        self.marks.append(Mark(time.time_ns(), kind, part))

    def phases(self, end_ns: int) -> list[Span]:
        """Forward, backward and optimizer, once for each batch of the step; what has not ended ends at `end_ns`."""
        begins = [mark for mark in self.marks if mark.kind in ("forward", "backward", "optimizer", "end")]
        ends = [mark.time_ns for mark in begins[1:]] + [end_ns]
        pairs = zip(begins, ends, strict=True)
        return [Span(mark.kind, None, mark.time_ns, end) for mark, end in pairs if mark.kind != "end"]  # pyright: ignore

    def runs(self, end_ns: int) -> list[Span]:
        """Of the parts. Backward of a part begins where that of the part before it was done, and what is recomputed for
        it lies inside; the head begins where the last block ended."""
        spans: list[Span] = []
        phase: Phase = "forward"
        since = 0
        entered: dict[Part | None, int] = {}
        for mark in self.marks:
            if mark.kind == "enter":
                entered[mark.part] = mark.time_ns
            elif mark.kind == "leave" and mark.part in entered:
                kind = "forward" if phase == "forward" else "recompute"
                spans.append(Span(kind, mark.part, entered.pop(mark.part), mark.time_ns))
                since = mark.time_ns if phase == "forward" else since
            elif mark.kind == "done":
                spans.append(Span("backward", mark.part, since, mark.time_ns))
                since = mark.time_ns
            elif mark.kind == "backward":
                if since:
                    spans.append(Span("forward", "head", since, mark.time_ns))
                phase, since = "backward", mark.time_ns
            elif mark.kind in ("forward", "optimizer"):
                phase, since = mark.kind, 0
        unfinished = "forward" if phase == "forward" else "recompute"
        spans.extend(Span(unfinished, part, start, end_ns) for part, start in entered.items())
        return spans
