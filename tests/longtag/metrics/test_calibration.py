"""Bins of confidence, held against sums by hand."""

import pytest
import torch

from longtag.metrics import Calibration


def test_expected_calibration_error_is_that_of_a_sum_by_hand():
    # Two bins below and above one half. Below: 2 tokens, mean confidence 0.3, half of them right: off by 0.2.
    # Above: 3 tokens, mean confidence 0.8, two thirds right: off by 0.8 - 2/3. In all (2 * 0.2 + 3 * 0.1333) / 5.
    calibration = Calibration(num_bins=2)
    calibration.update(
        torch.tensor([[0, 1, 2, 0, 1]]), torch.tensor([[0.2, 0.4, 0.7, 0.8, 0.9]]), torch.tensor([[0, 0, 2, 0, 0]])
    )
    found = calibration.compute()
    assert found["count"].tolist() == [2, 3]
    assert found["confidence"].tolist() == pytest.approx([0.3, 0.8])
    assert found["accuracy"].tolist() == pytest.approx([0.5, 2 / 3])
    assert float(found["expected_calibration_error"]) == pytest.approx((2 * 0.2 + 3 * (0.8 - 2 / 3)) / 5)


def test_certainty_falls_into_the_last_bin_and_tokens_without_a_label_into_none():
    calibration = Calibration(num_bins=4)
    calibration.update(torch.tensor([[0, 0, 0]]), torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[0, 0, -100]]))
    assert calibration.compute()["count"].tolist() == [1, 0, 0, 1]


def test_batches_add_up_to_all_tokens_at_once():
    generator = torch.Generator().manual_seed(0)
    classes, labels = torch.randint(5, (2, 4, 1000), generator=generator)
    sure = torch.rand(4, 1000, generator=generator)
    at_once, in_parts = Calibration(), Calibration()
    at_once.update(classes, sure, labels)
    for row in range(4):
        in_parts.update(classes[row : row + 1], sure[row : row + 1], labels[row : row + 1])
    torch.testing.assert_close(at_once.sums, in_parts.sums)


def test_a_confidence_that_is_no_number_counts_as_none_at_all():
    calibration = Calibration(num_bins=2)
    calibration.update(torch.tensor([[1]]), torch.tensor([[float("nan")]]), torch.tensor([[0]]))
    found = calibration.compute()
    assert found["count"].tolist() == [1, 0]
    assert float(found["expected_calibration_error"]) == 0
