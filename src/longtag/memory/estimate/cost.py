"""What operators cost in time, as a roofline: each takes as long as its arithmetic or as the bytes that it moves."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils.flop_counter import flop_registry

PRODUCTS_PER_SECOND = {2: 600e12, 4: 400e12, 8: 30e12}
"""FLOPs of matrix products a second by bytes of an element: about what an H100 reaches (686e12 at best in bfloat16)."""
BYTES_PER_SECOND = 3.0e12
"""Copies within the memory of an H100."""
GATHERED_PER_SECOND = 7.5e12
"""Bytes of rows that attention gathers, most of them from an H100's cache."""
SECONDS_PER_OPERATOR = 4e-6
"""Less than this no kernel takes from one launch to the next."""

IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm}
"""What has no formula of its own, and the operator of the same cost."""


class Cost(NamedTuple):
    """products: FLOPs of matrix products, attention left out. attention: its FLOPs. seconds: estimated, on an H100."""

    products: int = 0
    attention: int = 0
    seconds: float = 0.0

    def plus(self, other: "Cost") -> "Cost":
        return Cost(self.products + other.products, self.attention + other.attention, self.seconds + other.seconds)

    def times(self, factor: float) -> "Cost":
        return Cost(round(self.products * factor), round(self.attention * factor), self.seconds * factor)


def cost_of(func: Any, args: tuple, kwargs: dict[str, Any], inputs: list[Tensor], outputs: list[Tensor]) -> Cost:
    """The cost of one call; nothing for views and for memory that is not written."""
    if func.is_view or not outputs or "empty" in func.__name__ or func.__name__.startswith("detach"):
        return Cost()
    itemsize = max(tensor.dtype.itemsize for tensor in outputs)
    flops, formula = 0, flop_registry.get(IN_PLACE.get(func._overloadpacket, func._overloadpacket))
    if formula is not None:
        # Formulas may look at lists that have data.
        with unset_fake_temporarily():
            flops = int(formula(*args, **kwargs, out_val=outputs[0]))
    moved = sum(tensor.nbytes for tensor in inputs) + sum(tensor.nbytes for tensor in outputs)
    is_product = func.namespace == "aten" and "mm" in func.__name__
    if flops and not is_product:
        # A gathered number takes part in one multiplication and one addition.
        gathered = 0 if func.namespace == "aten" else flops // 2 * itemsize
        rate = PRODUCTS_PER_SECOND[itemsize] / 2 if func.namespace == "aten" else float("inf")
        seconds = moved / BYTES_PER_SECOND + gathered / GATHERED_PER_SECOND + flops / rate
        return Cost(0, flops, SECONDS_PER_OPERATOR + seconds)
    seconds = SECONDS_PER_OPERATOR + max(moved / BYTES_PER_SECOND, flops / PRODUCTS_PER_SECOND[max(2, itemsize)])
    return Cost(flops if is_product else 0, 0, seconds)
