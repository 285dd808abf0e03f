"""What share of a device's peak is measured against."""

import pytest
import torch

from longtag.peak_flops import peak_flops


@pytest.fixture
def gpu(monkeypatch):
    def named(name: str) -> torch.device:
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *args: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *args: (9, 0))
        return torch.device("cuda", 0)

    return named


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3", "NVIDIA H200"])
@pytest.mark.parametrize(
    ("precision", "tflops"), [("bf16-mixed", 989), ("bf16-true", 989), ("16-mixed", 989), ("32-true", 494)]
)
def test_known_gpus_have_the_peak_of_the_dtype_that_is_multiplied(gpu, name, precision, tflops, monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert (peak_flops(gpu(name), precision) or 0) // 10**12 == tflops


def test_without_tf32_float32_has_less(gpu, monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest")
    assert peak_flops(gpu("NVIDIA H200"), "32-true") == 66_900_000_000_000


@pytest.mark.filterwarnings("error")
def test_of_an_unknown_gpu_nothing_is_said(gpu):
    assert peak_flops(gpu("GPU of next year"), "bf16-mixed") is None
    assert peak_flops(torch.device("cpu"), "bf16-mixed") is None
