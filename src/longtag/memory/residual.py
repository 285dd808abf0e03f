"""The residual stream in fewer bits: what runs from block to block, and what checkpointing keeps of it."""

import torch
from torch import Tensor

from longtag.memory.levers import Residual


def narrowed(x: Tensor, residual: Residual) -> Tensor:
    """x as the stream holds it: in bfloat16 where that is asked for and autocast is on."""
    return x.to(torch.bfloat16) if _is_narrow(x, residual) else x


def sum_to_norm(x: Tensor, branch: Tensor, residual: Residual) -> Tensor:
    """x + branch, where a norm follows, which reads float32 under autocast: then no bits are lost in between.

    branch may be changed in place.
    """
    return branch.float().add_(x) if _is_narrow(x, residual) else x + branch


def _is_narrow(x: Tensor, residual: Residual) -> bool:
    return residual == "bfloat16" and torch.is_autocast_enabled(x.device.type)
