"""A place where tensors have shapes and no data, and operators take and make what they would on the device planned for.

Torch can follow tensors of a CUDA device without data only where it was built for CUDA. Here they are tensors of the
CPU without data, and the few operators that do something else on CUDA are replaced by what they do there.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from longtag.errors import UsageError
from longtag.fused import why_not
from longtag.memory.even_tiles import some_tiles_only
from longtag.model import block, rotary
from sparse_attention import IMPLEMENTATIONS, IndexList, InParts, Layout

FOR_SHAPES = "for shapes alone"
"""An implementation of attention for every layout and device: Triton's operators, or torch's own if it is dense."""

PROCESSORS = 132
"""Multiprocessors of an H100, which say in how many parts column sums are added up."""


@contextlib.contextmanager
def without_data(device_type: str) -> Iterator[None]:
    """Inside, tensors are made without data, and operators act as on "cuda" or "cpu"; they take both kinds.

    Raises UsageError where Triton is not installed, whose kernels are what is counted.
    """
    if find_spec("triton") is None:
        raise UsageError("triton is not installed, and what its kernels hold cannot be counted; pip install triton")
    with contextlib.ExitStack() as stack:
        stack.enter_context(some_tiles_only())
        stack.enter_context(_attention_for_shapes())
        if device_type == "cuda":
            stack.enter_context(_as_on_cuda())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def stand_in(layout: Layout) -> Layout:
    """A layout of the same size, made inside of `without_data`: lists that grow with the length have no data."""
    if type(layout) is IndexList:
        indices = torch.empty(layout.indices.shape, dtype=torch.int32)
        return IndexList(indices, layout.num_keys, layout.full_rows, validate=False)
    if isinstance(layout, InParts):
        return InParts([stand_in(part) for part in layout.parts])
    return layout


def implementation_for_shapes(asked: str, device_type: str, layout: Layout) -> str:
    """What holds the memory that the implementation asked for, or "auto", will hold on the device.

    What is plain torch looks at its lists, and cannot do without data: where it is taken, Triton's operators stand in
    for it, which keep the same tensors for backward. What it holds besides is bounded, and not counted.
    """
    if layout.kind == "dense":
        return asked if asked != "auto" or device_type == "cpu" else FOR_SHAPES
    return FOR_SHAPES


@contextlib.contextmanager
def _attention_for_shapes() -> Iterator[None]:
    from sparse_attention.triton.kernel import Kernel  # imports triton

    triton, sdpa = IMPLEMENTATIONS["triton"], IMPLEMENTATIONS["sdpa"]
    IMPLEMENTATIONS[FOR_SHAPES] = replace(
        triton, load={**triton.load, **sdpa.load}, why_not=lambda q, k, v, layout: None
    )
    try:
        # What happens around kernels, which is where their scratch memory comes from, without the kernels.
        with _replaced(Kernel, "__getitem__", lambda self, grid: lambda *args, **kwargs: None):
            yield
    finally:
        del IMPLEMENTATIONS[FOR_SHAPES]


@contextlib.contextmanager
def _as_on_cuda() -> Iterator[None]:
    from longtag.fused import launch, masked_product  # they import triton

    layer_norm = F.layer_norm

    def in_float32(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Under autocast the CPU norms in the dtype of the input.
        return layer_norm(input.float() if torch.is_autocast_enabled("cpu") else input, *args, **kwargs)

    with (
        _replaced(F, "dropout", _dropout),
        _replaced(F, "layer_norm", in_float32),
        _replaced(launch, "processors_of", lambda device: PROCESSORS),
        _replaced(masked_product, "masked_product", _masked_product),
        _replaced(block, "why_not", _why_not_fused),
        _replaced(rotary, "why_not", _why_not_fused),
    ):
        yield


def _masked_product(a: Tensor, b: Tensor, mask: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """What the kernel of this name makes, as a product that is seen from outside and counts as one."""
    from longtag.fused.masked_product import BLOCK_N

    sums = torch.empty((-(-a.shape[0] // BLOCK_N), b.shape[1]), dtype=torch.float32)
    return a @ b, sums.sum(0)


def _why_not_fused(x: Tensor) -> str | None:
    """Why the fused kernels could not take x on a GPU. Without data they launch nothing."""
    # Of no rows, so that it counts for nothing.
    return why_not(torch.empty((0, x.shape[-1]), dtype=x.dtype, device="meta"))


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """One operator that keeps a mask of one byte an element; the CPU keeps a factor in the dtype of the input."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


@contextlib.contextmanager
def _replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)
