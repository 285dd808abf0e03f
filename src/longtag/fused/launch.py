"""What launching a kernel takes."""

from functools import cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

PROGRAMS_OF_A_PROCESSOR = 8
"""Programs that walk over the rows and add up columns, for each processor of the GPU."""


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and no data, as where memory is counted: there is nothing to launch."""
    return isinstance(tensor, FakeTensor)


def power_of_two(least: int) -> int:
    """The smallest power of two from `least` on."""
    return 1 << (least - 1).bit_length()


def programs_of(device: torch.device, most: int) -> int:
    """How many programs share out work that could be done by `most`."""
    return min(most, PROGRAMS_OF_A_PROCESSOR * processors_of(device))


@cache
def processors_of(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 where kernels are interpreted."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
