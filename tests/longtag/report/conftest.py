"""A sweep that nobody ran, written once for all tests that only read it."""

from pathlib import Path

import pytest

from . import fake


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patterns, two seeds each."""
    return fake.write_sweep(tmp_path_factory.mktemp("sweep"), ["window", "dilated", "bigbird"], 2, distances=[4, 64])
