"""From float32 to bfloat16 without losing what is smaller than bfloat16's precision, 0.4 % of a weight.

A bfloat16 number is the upper half of a float32 number. Rounded to the nearest, a change of less than half a step of it
comes to nothing, however often it is repeated.
"""

import torch
from torch import Tensor

HALF = 0x8000
UPPER = -0x10000


def stochastic(x: Tensor, noise: Tensor) -> Tensor:
    """float32 x in bfloat16, rounded up or down so that the mean over the noise is x.

    noise: int32 of the shape of x, each of 0 .. 65535 as likely. One that is not a number stays so.
    """
    return (_add_to_bits(x, noise) & UPPER).view(torch.float32).to(torch.bfloat16)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """float32 x as the nearest bfloat16, and what `joined` needs to give x back to the bit: 16 bits, int16.

    The layout of Split-SGD (Kalamkar et al., 2020, arXiv:2005.04680), here with the nearest number on top.
    """
    upper = _add_to_bits(x, HALF) & UPPER
    cut_off = x.view(torch.int32) - upper
    return upper.view(torch.float32).to(torch.bfloat16), cut_off.to(torch.int16)


def joined(rounded: Tensor, cut_off: Tensor) -> Tensor:
    """The float32 of which `split` gave these two."""
    return (rounded.float().view(torch.int32) + cut_off.int()).view(torch.float32)


def _add_to_bits(x: Tensor, amount: Tensor | int) -> Tensor:
    bits = x.view(torch.int32)
    # The bits of a NaN may all be set, and a sum would run over into those of a number.
    return torch.where(x.isnan(), bits, bits + amount)
