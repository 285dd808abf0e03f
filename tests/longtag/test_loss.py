import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from longtag.errors import UsageError
from longtag.loss import TokenLoss

SEEDS = [0, 1]


def random_batch(seed: int, num_classes: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    logits = (3 * torch.randn(2, 31, num_classes)).requires_grad_()
    labels = torch.randint(num_classes, (2, 31)).masked_fill(torch.rand(2, 31) < 0.3, -100)
    return logits, labels


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.0, 3.0, 1.0, 0.1]])
def test_values_and_gradients_are_those_of_torchs_cross_entropy(seed, smoothing, weights):
    logits, labels = random_batch(seed)
    loss = TokenLoss(class_weights=weights, label_smoothing=smoothing)(logits, labels)
    expected = F.cross_entropy(
        logits.flatten(0, 1),
        labels.flatten(),
        None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, logits)[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5, 0.0, 3.0, 1.0, 0.1]])
def test_focal_loss_is_its_formula_in_float64(seed, gamma, weights):
    logits, labels = random_batch(seed)
    loss = TokenLoss(class_weights=weights, focal_gamma=gamma)(logits, labels)

    exact = logits.detach().double().requires_grad_()
    labelled = labels >= 0
    target = labels[labelled]
    p = exact.softmax(-1)[labelled].gather(-1, target[:, None])[:, 0]
    w = torch.ones(7, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = (-w[target] * (1 - p) ** gamma * p.log()).sum() / w[target].sum()

    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-6)
    grad, expected_grad = torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, exact)[0]
    torch.testing.assert_close(grad, expected_grad.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"focal_gamma": 2.0}, {"label_smoothing": 0.1}, {"class_weights": [1.0, 2.0]}])
def test_a_crop_without_a_label_costs_nothing_and_has_zero_gradients(options):
    logits = torch.randn(1, 9, 2, requires_grad=True)
    loss = TokenLoss(**options)(logits, torch.full((1, 9), -100))
    assert loss.item() == 0
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))


def test_a_crop_whose_labels_all_weigh_nothing_counts_as_unlabelled():
    logits = torch.randn(1, 9, 2, requires_grad=True)
    loss = TokenLoss(class_weights=[0.0, 1.0])(logits, torch.zeros(1, 9, dtype=torch.int64))
    assert loss.item() == 0
    assert torch.equal(torch.autograd.grad(loss, logits)[0], torch.zeros_like(logits))


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0, 2.0])
def test_the_focal_loss_has_the_right_gradients_where_a_token_is_certainly_right_or_wrong(gamma):
    logits = torch.tensor([[[200.0, -200.0], [-200.0, 200.0]]], requires_grad=True)
    (grad,) = torch.autograd.grad(TokenLoss(focal_gamma=gamma)(logits, torch.tensor([[0, 0]])), logits)
    assert torch.equal(grad[0, 0], torch.zeros(2))
    torch.testing.assert_close(grad[0, 1], torch.tensor([-0.5, 0.5]))


def test_bfloat16_logits_under_autocast_give_the_float32_loss():
    logits, labels = random_batch(0)
    for options in ({}, {"focal_gamma": 2.0, "class_weights": [1.0, 2.0, 0.5, 0.0, 3.0, 1.0, 0.1]}):
        criterion = TokenLoss(**options)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = criterion(logits.bfloat16(), labels)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, criterion(logits.bfloat16().float(), labels), rtol=0, atol=0)


def test_balanced_weights_let_all_classes_that_occur_contribute_alike():
    counts = np.array([900, 90, 0, 10])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weights = TokenLoss(class_weights="balanced", class_counts=counts).weights
    assert weights is not None
    torch.testing.assert_close(weights * torch.tensor(counts), torch.tensor([1000 / 3, 1000 / 3, 0, 1000 / 3]))


def test_weights_are_no_part_of_a_checkpoint():
    assert not TokenLoss(class_weights=[1.0, 2.0]).state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"focal_gamma": -1.0}, "focal_gamma=-1.0: expected 0"),
        ({"label_smoothing": 1.5}, "label_smoothing=1.5: expected a share from 0 to 1"),
        (
            {"focal_gamma": 2.0, "label_smoothing": 0.1},
            "focal_gamma=2.0 and label_smoothing=0.1: .* set one",
        ),
        ({"class_weights": "inverse"}, "class_weights=inverse: expected null, balanced, or"),
        ({"class_weights": "balanced"}, "class_weights=balanced: .* no labelled token"),
        ({"class_weights": "balanced", "class_counts": [0, 0]}, "class_weights=balanced: .* no labelled token"),
        ({"class_weights": [1.0, 2.0], "class_counts": [5, 5, 5]}, "2 weights for 3 classes"),
        ({"class_weights": [1.0, -2.0]}, r"class_weights=\[1.0, -2.0\]: expected numbers from 0 up"),
        ({"class_weights": [1.0, float("nan")]}, "expected numbers from 0 up"),
        ({"class_weights": [0.0, 0.0]}, "not all of them 0"),
    ],
)
def test_options_that_cannot_be_used_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        TokenLoss(**options)
