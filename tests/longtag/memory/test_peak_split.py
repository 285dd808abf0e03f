import random

from longtag.memory.peak_split import Moment, PeakSplit

WEIGHTS, STATES, BESIDE = 100, 200, 7
"""Bytes of weights, of optimizer states, and of a batch and a layout beside them."""


def moment(gradients: int, activations: int, extra: int = 0) -> Moment:
    return Moment(WEIGHTS + STATES + BESIDE + gradients + activations + extra, gradients, STATES)


def test_a_peak_at_the_start_of_backward_is_weights_states_and_all_activations():
    split = PeakSplit(WEIGHTS, moment(gradients=0, activations=0))
    split.note(moment(gradients=0, activations=1000), peak=1307 + 20)
    split.note(moment(gradients=40, activations=500), peak=1307 + 60)
    split.note(moment(gradients=100, activations=0), peak=1307 + 60)
    parts = {"weights": 100, "gradients": 0, "optimizer_states": 200, "activations": 1000, "temporary": 67}
    assert split.parts() == parts


def test_a_peak_at_the_end_of_backward_holds_the_gradients_and_not_the_activations_that_were_used_up():
    split = PeakSplit(WEIGHTS, moment(gradients=0, activations=0))
    split.note(moment(gradients=0, activations=30), peak=340)
    split.note(moment(gradients=50, activations=15), peak=380)
    split.note(moment(gradients=100, activations=0), peak=420)
    parts = {"weights": 100, "gradients": 100, "optimizer_states": 200, "activations": 0, "temporary": 20}
    assert split.parts() == parts


def test_gradients_of_the_step_before_count_where_they_stand_while_forward_runs():
    split = PeakSplit(WEIGHTS, moment(gradients=100, activations=0))
    split.note(moment(gradients=100, activations=50), peak=460)
    split.note(moment(gradients=0, activations=50), peak=460)
    assert split.parts()["gradients"] == 100
    assert split.parts()["activations"] == 50
    assert split.parts()["temporary"] == 10


def test_a_step_that_makes_the_optimizers_states_counts_them():
    split = PeakSplit(WEIGHTS, Moment(WEIGHTS, 0, 0))
    split.note(Moment(WEIGHTS + 100, 100, 0), peak=220)
    split.note(Moment(WEIGHTS + 100 + STATES, 100, STATES), peak=430)
    parts = {"weights": 100, "gradients": 100, "optimizer_states": 200, "activations": 0, "temporary": 30}
    assert split.parts() == parts


def test_the_parts_sum_to_the_peak_wherever_it_is():
    draw = random.Random(0)
    for _ in range(200):
        split = PeakSplit(WEIGHTS, moment(draw.choice([0, 100]), 0))
        peak = 0
        for _ in range(5):
            now = moment(draw.randrange(100), draw.randrange(500), draw.randrange(50))
            peak = max(peak, now.allocated + draw.randrange(100))
            split.note(now, peak)
        assert sum(split.parts().values()) == split.peak == peak
        assert min(split.parts().values()) >= 0
