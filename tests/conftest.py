"""Tests marked `gpu` run where there is a CUDA device and are skipped elsewhere; kernels are interpreted there."""

import os

# Before torch starts its threads: on tensors as small as these they wait for one another more than they compute, and on
# a busy machine fifty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if not torch.cuda.is_available():
    # Before anything imports Triton, which reads this once.
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
