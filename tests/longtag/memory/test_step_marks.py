from longtag.memory.step_marks import Mark, Span, StepMarks


def marks(*given: tuple) -> StepMarks:
    step = StepMarks()
    step.marks = [Mark(*mark) for mark in given]
    return step


CHECKPOINTED = marks(
    (0, "forward"),
    (1, "enter", 0),
    (3, "leave", 0),
    (3, "enter", 1),
    (6, "leave", 1),
    (8, "zero_grad"),
    (9, "backward"),
    (10, "done", "head"),
    (11, "enter", 1),
    (13, "leave", 1),
    (16, "done", 1),
    (17, "enter", 0),
    (18, "leave", 0),
    (20, "done", 0),
    (21, "optimizer"),
    (25, "end"),
)


def test_phases_follow_one_another():
    assert CHECKPOINTED.phases(25) == [
        Span("forward", None, 0, 9),
        Span("backward", None, 9, 21),
        Span("optimizer", None, 21, 25),
    ]


def test_a_block_that_runs_in_backward_is_recomputed_inside_of_its_own_backward():
    assert CHECKPOINTED.runs(25) == [
        Span("forward", 0, 1, 3),
        Span("forward", 1, 3, 6),
        Span("forward", "head", 6, 9),
        Span("backward", "head", 9, 10),
        Span("recompute", 1, 11, 13),
        Span("backward", 1, 10, 16),
        Span("recompute", 0, 17, 18),
        Span("backward", 0, 16, 20),
    ]


def test_each_batch_of_an_accumulated_step_has_its_phases():
    step = marks((0, "forward"), (2, "backward"), (4, "optimizer"), (5, "end"), (6, "forward"), (7, "backward"))
    assert [(span.kind, span.start_ns, span.end_ns) for span in step.phases(9)] == [
        ("forward", 0, 2),
        ("backward", 2, 4),
        ("optimizer", 4, 5),
        ("forward", 6, 7),
        ("backward", 7, 9),
    ]


def test_what_was_running_when_a_step_broke_off_lasts_until_then():
    step = marks((0, "forward"), (1, "enter", 0), (3, "leave", 0), (3, "enter", 1))
    assert step.phases(7) == [Span("forward", None, 0, 7)]
    assert step.runs(7)[-1] == Span("forward", 1, 3, 7)


def test_a_mark_waits_before_it_looks_at_the_clock():
    waited = []
    step = StepMarks(wait=lambda: waited.append(len(step.marks)))
    step.add("forward")
    step.add("enter", 0)
    assert waited == [0, 1]
    assert step.marks[0].time_ns <= step.marks[1].time_ns
