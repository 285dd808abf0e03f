"""The most arithmetic that a device can do in a second."""

import warnings

import torch
from lightning.fabric.utilities.throughput import get_available_flops

H200 = {16: 989.4e12, "tf32": 494.7e12, 32: 66.9e12}
"""FLOP/s without sparsity, as of the H100 SXM (NVIDIA's data sheets). Lightning's table does not have this GPU."""


def peak_flops(device: torch.device, precision: str) -> int | None:
    """FLOP/s of `device` in what matrix products are computed in under a Trainer's precision, or None where unknown."""
    if device.type != "cuda":
        return None
    dtype = torch.bfloat16 if "bf16" in precision else torch.float16 if "16" in precision else torch.float32
    if "H200" in torch.cuda.get_device_name(device):
        full = "tf32" if torch.get_float32_matmul_precision() != "highest" else 32
        return int(H200[full if dtype == torch.float32 else 16])
    with warnings.catch_warnings():
        # Of a device that it does not know; then the share is left out.
        warnings.simplefilter("ignore")
        return get_available_flops(device, dtype)
