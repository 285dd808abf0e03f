import math

import pytest
import torch

from longtag.metrics.distance_accuracy import DistanceAccuracy


def random_batch(seed: int, longest: int = 5000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predictions that are often right, labels of which half are ignored, and distances from 1 on."""
    generator = torch.Generator().manual_seed(seed)
    labels, guesses = torch.randint(3, (2, 2, 400), generator=generator).unbind(0)
    predictions = torch.where(torch.rand(2, 400, generator=generator) < 0.5, labels, guesses)
    distances = torch.rand(2, 400, generator=generator).mul(math.log(longest)).exp().int()
    return predictions, labels.masked_fill(torch.rand(2, 400, generator=generator) < 0.5, -100), distances


def computed(*batches) -> dict[str, float]:
    metric = DistanceAccuracy()
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def test_each_range_is_scored_as_if_it_stood_alone():
    batches = [random_batch(seed) for seed in range(3)]
    right: dict[str, list[bool]] = {}
    for predictions, labels, distances in batches:
        for guess, label, distance in torch.stack((predictions, labels, distances), dim=-1).flatten(0, 1).tolist():
            if label != -100:
                bound = 1
                while distance > bound:
                    bound *= 4
                right.setdefault(f"accuracy_at_distance/{bound}", []).append(guess == label)
    assert len(right) == 8
    assert computed(*batches) == pytest.approx({name: sum(hits) / len(hits) for name, hits in right.items()})


def test_a_distance_of_exactly_a_power_of_four_closes_its_range():
    labels = torch.zeros(1, 5, dtype=torch.int64)
    found = computed((torch.tensor([[0, 1, 0, 0, 1]]), labels, torch.tensor([[16, 16, 17, 64, 65]])))
    assert found == {
        "accuracy_at_distance/16": 0.5,
        "accuracy_at_distance/64": 1.0,
        "accuracy_at_distance/256": 0.0,
    }
    assert list(found) == sorted(found, key=lambda name: int(name.split("/")[1]))


def test_ranges_without_a_label_have_no_score():
    labels = torch.tensor([[-100, 2]])
    assert computed((torch.tensor([[1, 2]]), labels, torch.tensor([[3, 900]]))) == {"accuracy_at_distance/1024": 1.0}


def test_distances_beyond_the_last_bound_count_in_its_range():
    distances = torch.tensor([[2**62]])
    assert computed((torch.tensor([[0]]), torch.tensor([[0]]), distances)) == {f"accuracy_at_distance/{4**19}": 1.0}


def test_the_state_is_two_vectors_that_processes_sum():
    metric = DistanceAccuracy()
    metric.update(*random_batch(0))
    assert list(metric.metric_state) == ["right", "total"]
    assert metric.total.shape == metric.right.shape == (20,)
    assert metric.total.dtype == metric.right.dtype == torch.int64
    for reduce in metric._reductions.values():
        assert callable(reduce)
        assert torch.equal(reduce(torch.stack((metric.total, metric.total))), 2 * metric.total)


def test_a_pass_begins_with_nothing():
    metric = DistanceAccuracy()
    metric.update(*random_batch(0))
    metric.reset()
    metric.update(*random_batch(1))
    assert {name: value.item() for name, value in metric.compute().items()} == computed(random_batch(1))
