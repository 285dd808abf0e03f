"""The arithmetic of matrix products, counted while they run, on tensors with data or without."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class MatrixProducts(TorchDispatchMode):
    """Inside ``with MatrixProducts() as products``, adds up the multiplications in `products.count`.

    Torch's own counter follows modules by hooks on the graph, with which a gradient taken inside of forward fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm):
            left = args[1] if func.overloadpacket is torch.ops.aten.addmm else args[0]
            self.count += out.numel() * left.shape[-1]
        return out
