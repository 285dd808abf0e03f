"""What a run says after its last step."""

import pytest

from longtag.announcement import show_results


def test_scores_of_validation_and_test_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    show_results({"val/loss": 0.5, "test/loss": 0.75}, {"val/loss": 0.25}, "outputs/mine")
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "loss" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["loss", "0.5000", "0.2500", "0.7500"]


def test_a_run_without_scores_shows_no_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    show_results({"throughput/step_ms": 12.0}, {"throughput/step_ms": 11.0}, "outputs/mine")
    assert capsys.readouterr().out.splitlines() == [
        "throughput/step_ms              last 12.00  best 11.00",
        "metrics, checkpoints and summary: outputs/mine",
    ]
