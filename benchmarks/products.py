"""The arithmetic of matrix products, counted while they run, on tensors with data or without."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

LEFT_FACTOR = {
    torch.ops.aten.mm: 0,
    torch.ops.aten.bmm: 0,
    torch.ops.aten.addmm: 1,
    torch.ops.aten.addmm_: 1,
}
"""Which argument of a product is its left factor."""


class MatrixProducts(TorchDispatchMode):
    """Inside ``with MatrixProducts() as products``, adds up the multiplications in `products.count`.

    Torch's own counter follows modules by hooks on the graph, with which a gradient taken inside of forward fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in LEFT_FACTOR:
            self.count += out.numel() * args[LEFT_FACTOR[func.overloadpacket]].shape[-1]
        return out
