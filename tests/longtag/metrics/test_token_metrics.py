import warnings

import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)

from longtag.metrics import TokenMetrics
from longtag.metrics.confusion import CHUNK, count, matthews_correlation

NAMES = ("intergenic", "CDS+", "CDS-", "RNA+", "RNA-")


def random_batch(seed: int, present=(0, 1, 2, 3, 4)) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions that are right half of the time, and labels; both hold the classes `present` only."""
    generator = torch.Generator().manual_seed(seed)
    shape, classes = (2, 701), torch.tensor(present)
    labels, guesses = (classes[torch.randint(len(present), shape, generator=generator)] for _ in range(2))
    predictions = torch.where(torch.rand(shape, generator=generator) < 0.5, labels, guesses)
    return predictions, labels.masked_fill(torch.rand(shape, generator=generator) < 0.3, -100)


def computed(*batches, **options) -> dict[str, float]:
    metrics = TokenMetrics(class_names=NAMES, **options)
    for predictions, labels in batches:
        metrics.update(predictions, labels)
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("present", [(0, 1, 2, 3, 4), (1, 3, 4), (2, 4)])
def test_all_scores_are_those_of_torchmetrics_even_with_absent_classes(seed, present):
    predictions, labels = random_batch(seed, present)
    found = computed((predictions, labels))
    expected = {
        "accuracy": multiclass_accuracy(predictions, labels, 5, average="micro", ignore_index=-100),
        "f1_macro": multiclass_f1_score(predictions, labels, 5, average="macro", ignore_index=-100),
        "mcc": multiclass_matthews_corrcoef(predictions, labels, 5, ignore_index=-100),
    }
    of_classes = multiclass_f1_score(predictions, labels, 5, average="none", ignore_index=-100)
    expected |= {f"f1/{name}": score for name, score in zip(NAMES, of_classes, strict=True)}
    assert found == pytest.approx({name: score.item() for name, score in expected.items()}, rel=1e-4)


def test_batches_add_up_to_one_long_batch():
    batches = [random_batch(seed) for seed in range(3)]
    joined = tuple(torch.cat(parts, dim=1) for parts in zip(*batches, strict=True))
    assert computed(*batches) == computed(joined)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_count_as_their_largest_class(dtype):
    predictions, labels = random_batch(0)
    logits = torch.nn.functional.one_hot(predictions, 5).to(dtype) + torch.rand(2, 701, 5).to(dtype) / 2
    assert computed((logits, labels)) == computed((predictions, labels))


def test_a_class_that_never_occurs_does_not_lower_the_macro_f1():
    labels = torch.tensor([[0, 1, 1, 0]])
    found = computed((labels, labels))
    assert found["f1_macro"] == found["f1/CDS+"] == 1
    assert found["f1/RNA-"] == 0


def test_a_class_that_is_only_predicted_does_lower_it():
    found = computed((torch.tensor([[0, 1, 4, 0]]), torch.tensor([[0, 1, 1, 0]])))
    assert found["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_a_single_class_has_no_correlation_but_full_accuracy():
    only = torch.full((1, 9), 2)
    found = computed((only, only))
    assert (found["accuracy"], found["f1_macro"], found["mcc"]) == (1, 1, 0)


def test_without_a_labelled_token_all_scores_are_zero_and_nobody_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = computed((torch.zeros(1, 9, dtype=torch.int64), torch.full((1, 9), -100)))
    assert found == dict.fromkeys(["accuracy", "f1_macro", "mcc", *(f"f1/{name}" for name in NAMES)], 0)


@pytest.mark.parametrize(
    ("num_classes", "per_class", "listed"),
    [(32, "auto", 32), (33, "auto", 0), (33, True, 33), (4, False, 0)],
)
def test_scores_of_single_classes_are_listed_on_demand_or_when_they_are_few(num_classes, per_class, listed):
    metrics = TokenMetrics(class_names=[str(index) for index in range(num_classes)], per_class=per_class)
    labels = torch.zeros(1, 3, dtype=torch.int64)
    metrics.update(labels, labels)
    assert sum(name.startswith("f1/") for name in metrics.compute()) == listed


def test_the_state_is_one_integer_matrix_that_processes_sum():
    metrics = TokenMetrics(class_names=NAMES)
    metrics.update(torch.tensor([[1, 2, 2]]), torch.tensor([[1, 1, -100]]))
    assert metrics.confusion.dtype == torch.int64
    expected = torch.zeros(5, 5, dtype=torch.int64)
    expected[1, 1] = expected[1, 2] = 1
    assert torch.equal(metrics.confusion, expected)
    reduce = metrics._reductions["confusion"]
    assert callable(reduce)
    assert torch.equal(reduce(torch.stack((expected, expected))), 2 * expected)


def test_no_graph_and_no_logits_are_kept():
    metrics = TokenMetrics(class_names=NAMES)
    metrics.update(torch.randn(1, 9, 5, requires_grad=True), torch.zeros(1, 9, dtype=torch.int64))
    assert list(metrics.metric_state) == ["confusion"]
    assert not metrics.confusion.requires_grad


def test_sequences_longer_than_a_chunk_are_counted_whole():
    generator = torch.Generator().manual_seed(0)
    predictions, labels = torch.randint(3, (2, CHUNK + 17), generator=generator).unbind(0)
    expected = torch.zeros(3, 3, dtype=torch.int64).index_put_(
        (labels, predictions), torch.ones(CHUNK + 17, dtype=torch.int64), accumulate=True
    )
    assert torch.equal(count(predictions, labels, 3), expected)


def test_the_correlation_survives_counts_whose_squares_leave_int64():
    matrix = torch.tensor([[6, 2], [1, 5]])
    torch.testing.assert_close(matthews_correlation(matrix * 10**15), matthews_correlation(matrix))
