"""Descriptors, by which kernels read and write tiles of a matrix without addresses and masks of their own.

On a GPU with a copy engine (compute capability 9.0) a tile is one instruction of one thread; elsewhere Triton's
compiler makes pointers of the same code.
"""

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from .launch import padded

ALIGNMENT = 16
"""Bytes. Where a matrix begins, and what lies between its rows, heads and sequences, are multiples of it."""


def tiles_of(x: Tensor, rows: int) -> TensorDescriptor:
    """Of x (b, h, n, d), which `can_describe`, tiles of so many rows as wide as kernels hold them."""
    # A stride over which nobody steps may be anything.
    strides = [stride if size > 1 else ALIGNMENT for size, stride in zip(x.shape[:3], x.stride(), strict=False)]
    return TensorDescriptor(x, list(x.shape), [*strides, 1], [1, 1, rows, padded(x.shape[3])])


def can_describe(x: Tensor) -> bool:
    """Whether kernels can read x, (..., d) of any dims, where it is."""
    steps = [stride * x.itemsize for size, stride in zip(x.shape[:-1], x.stride(), strict=False) if size > 1]
    return x.stride(-1) == 1 and all(step > 0 and step % ALIGNMENT == 0 for step in steps) and _begins_well(x)


def aligned_width(head_dim: int, dtype: torch.dtype) -> int:
    """The least width from head_dim on of which rows one behind the other can be described."""
    elements = ALIGNMENT // dtype.itemsize
    return -(-head_dim // elements) * elements


def _begins_well(x: Tensor) -> bool:
    # Memory itself is aligned; a view may begin anywhere. Asked of tensors without data as well.
    return x.storage_offset() * x.itemsize % ALIGNMENT == 0
