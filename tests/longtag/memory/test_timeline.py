import numpy as np

from longtag.memory.timeline import build, curve_of_trace

from .test_step_marks import CHECKPOINTED, marks


def built(curve, step=CHECKPOINTED, **given):
    defaults = {"gradients_before": 50, "gradients_of_parts": {"head": 10, 0: 20, 1: 15}, "gradients_after": 50}
    return build(curve, step, weights=100, optimizer_states=200, **(defaults | given))


def curve(*points: tuple[int, int]):
    times, sizes = zip(*points, strict=True)
    return np.array(times), np.array(sizes)


def at(timeline, values: np.ndarray, time: int) -> int:
    return int(values[np.searchsorted(timeline.times_ns, time, side="right") - 1])


def test_a_trace_is_counted_back_from_what_is_allocated_at_its_end():
    trace = [
        {"action": "alloc", "size": 30, "time_us": 1},
        {"action": "segment_alloc", "size": 999, "time_us": 2},
        {"action": "free_requested", "size": 30, "time_us": 3},
        {"action": "free_completed", "size": 30, "time_us": 4},
        {"action": "alloc", "size": 5, "time_us": 6},
    ]
    times, sizes = curve_of_trace(trace, now=105)
    assert times.tolist() == [1000, 4000, 6000]
    assert sizes.tolist() == [130, 100, 105]


def test_what_lies_before_the_step_is_left_out_but_for_what_it_left_behind():
    timeline = built(curve((-5, 340), (2, 400), (12, 450), (24, 360)))
    assert (timeline.times_ns[0], timeline.times_ns[-1]) == (0, 25)
    assert [at(timeline, timeline.allocated, time) for time in (0, 2, 13, 25)] == [340, 400, 450, 360]
    assert (timeline.peak, timeline.peak_ns) == (450, 12)


def test_gradients_stand_until_they_are_freed_and_come_back_part_by_part():
    timeline = built(curve((0, 350), (12, 450)))
    found = [at(timeline, timeline.gradients, time) for time in (0, 7, 8, 10, 16, 20, 21)]
    assert found == [50, 50, 0, 10, 25, 45, 50]


def test_a_second_batch_adds_to_the_gradients_of_the_first():
    batch = [("backward",), ("done", 0), ("optimizer",), ("end",)]
    given = [(0, "forward"), (1, "zero_grad"), *((time, *mark) for time, mark in enumerate(batch + batch, start=2))]
    timeline = built(curve((0, 300)), marks(*given), gradients_of_parts={0: 20}, gradients_after=20)
    assert max(timeline.gradients[1:]) == 20
    assert timeline.gradients[-1] == 20


def test_a_moment_is_told_by_the_innermost_of_what_runs():
    timeline = built(curve((0, 350), (12, 450)))
    words = [timeline.where(time) for time in (2, 4, 7, 12, 14, 22)]
    assert words == [
        "forward of block 1",
        "forward of block 2",
        "forward of head and loss",
        "recomputation of block 2",
        "backward of block 2",
        "optimizer",
    ]


def test_a_step_that_broke_off_ends_with_its_last_event():
    timeline = built(curve((0, 300), (9, 700)), marks((0, "forward"), (3, "enter", 0)))
    assert (timeline.times_ns[-1], timeline.where(8)) == (9, "forward of block 1")
