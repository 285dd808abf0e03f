"""Memory as kernels should fear it."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def memory_full_of_nan() -> Iterator[None]:
    """Whatever a kernel forgets to write, or reads too much of, shows as NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    yield
    torch.use_deterministic_algorithms(before)
