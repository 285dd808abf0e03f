"""In which dtype matrices are multiplied."""

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """That of autocast where it is on, else that of x."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
