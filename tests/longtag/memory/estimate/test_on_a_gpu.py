"""The estimate against torch's own count of a training step."""

import pytest
from benchmarks.estimate import measure, subject

from longtag.memory.estimate import estimate


@pytest.mark.gpu
@pytest.mark.parametrize("memory", ["fast", "balanced", "lean"])
def test_the_estimate_is_within_ten_per_cent_of_what_is_measured(memory):
    what = subject(f"memory={memory}", 50_000)
    assert estimate(what).peak == pytest.approx(measure(what), rel=0.1)
