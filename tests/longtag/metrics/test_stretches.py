"""Which stretches of a test are kept to be looked at."""

import torch

from longtag.metrics.stretches import ExampleStretches


def with_errors(*numbers: int, length: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions, confidences and labels of one crop, whose stretches have so many errors each."""
    labels = torch.zeros(1, len(numbers) * length, dtype=torch.int64)
    predictions = labels.clone()
    for place, number in enumerate(numbers):
        predictions[0, place * length : place * length + number] = 1
    return predictions, torch.rand(labels.shape), labels


def places(stretches: ExampleStretches) -> dict[str, tuple[int, int]]:
    return {
        why: (example.stretch.crop, example.stretch.start)
        for example in stretches.chosen()
        for why in example.why.split(", ")
    }


def test_most_errors_and_a_typical_one_are_found_over_several_crops():
    stretches = ExampleStretches(length=20)
    stretches.add(*with_errors(2, 0, 3))
    stretches.add(*with_errors(2, 15, 2))
    # Errors are 2, 0, 3, 2, 15, 2: the median is 2, and the first with 2 comes first of all.
    assert places(stretches) == {"most errors": (1, 20), "typical": (0, 0), "most changes of label": (0, 0)}
    worst = stretches.chosen()[0].stretch
    assert worst.accuracy == 0.25
    assert worst.predictions.tolist() == [1] * 15 + [0] * 5


def test_the_stretch_with_most_changes_of_label_is_one_of_the_examples():
    predictions, confidences, labels = with_errors(1, 2, 9)
    labels[0, [5, 10]] = 3
    labels[0, [25, 30, 35]] = 3
    stretches = ExampleStretches(length=20)
    stretches.add(predictions, confidences, labels)
    assert places(stretches)["most changes of label"] == (0, 20)


def test_stretches_with_few_labels_are_passed_over_and_short_crops_are_taken_whole():
    predictions, confidences, labels = with_errors(9, 1)
    labels[0, 5:20] = -100
    stretches = ExampleStretches(length=20)
    stretches.add(predictions, confidences, labels)
    assert set(places(stretches).values()) == {(0, 20)}
    whole = ExampleStretches(length=1000)
    whole.add(*with_errors(9, 1))
    assert len(whole.chosen()[0].stretch.labels) == 40


def test_what_is_kept_does_not_grow_with_the_test():
    stretches = ExampleStretches(length=20)
    for crop in range(200):
        stretches.add(*with_errors(*(crop * 7 % 21 for _ in range(3))))
    assert len([1 for _, kept in stretches._grades if kept]) <= 21
    assert all(kept.labels.untyped_storage().nbytes() == 20 * 8 for _, kept in stretches._grades if kept)


def test_nothing_is_chosen_where_nothing_is_labelled():
    stretches = ExampleStretches(length=20)
    stretches.add(torch.zeros(1, 20), torch.zeros(1, 20), torch.full((1, 20), -100))
    assert stretches.chosen() == []
