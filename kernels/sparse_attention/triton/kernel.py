"""Kernels that the host launches with little work of its own.

Triton binds the arguments of every launch anew, looks at each of them, and writes all of that down as the key by which
it finds what it compiled: 15 us for a kernel of thirty parameters on a fast core, and short sequences wait for it. A
`Kernel` leaves the first launch to Triton. For later ones whose arguments Triton would take for the same it hands the
addresses and numbers straight to what was compiled, in a third of that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import attrgetter, or_
from typing import Any, NamedTuple

import triton
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver

ALIGNMENT = 16
"""Bytes. Triton compiles for addresses that are multiples of it, and for others."""
BACKENDS = ("cuda", "hip")
"""Of Triton, those whose launchers take an address for a tensor. Elsewhere Triton launches everything itself."""
MOST_REMEMBERED = 4096
"""Launches that a kernel remembers. With sequences of always new lengths they would grow without end."""

_dtype_of = attrgetter("dtype")


class _Launch(NamedTuple):
    """run, function, metadata: as Triton compiled them. constants: the last parameters, in their order."""

    run: Callable[..., None]
    function: Any
    metadata: Any
    constants: tuple[Any, ...]


class Kernel:
    """`kernel[grid](*arguments, **constants)` launches a function made by `triton.jit`.

    arguments: in the order of the parameters: descriptors of tensors first, then tensors, then numbers.
    constants: the other parameters, which are the last, and what the compiler is told (`num_warps`), all by name.

    Whatever watches Triton's launches (its profiler) sees these as well, and the interpreter interprets them.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self._remembered: dict[tuple[Any, ...], _Launch] = {}
        self._is_compiled = isinstance(function, triton.JITFunction)
        # Where tensors begin and end among the arguments, known from the first launch.
        self._first_tensor = self._first_number = -1

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        if not self._is_compiled or _is_watched():
            self.function[grid](*arguments, **constants)
            return
        if self._first_number < 0:
            self._first_tensor, self._first_number = _places(arguments)
        descriptors = arguments[: self._first_tensor]
        tensors = arguments[self._first_tensor : self._first_number]
        numbers = arguments[self._first_number :]
        active: Any = driver.active
        device = active.get_current_device()
        addresses = tuple(map(Tensor.data_ptr, tensors))
        # What Triton would compile for: dtypes, what it can tell of addresses and numbers, and constants. It can tell
        # less of numbers than their values, which are at hand.
        key = (
            device,
            tuple(map(_dtype_of, tensors)),
            tuple(map(Tensor.get_device, tensors)),
            tuple(map(_past_alignment, addresses)) if reduce(or_, addresses, 0) % ALIGNMENT else None,
            numbers,
            tuple(constants.items()),
            tuple(map(_description, descriptors)),
        )
        launch = self._remembered.get(key)
        if launch is None:
            self._remember(key, self.function[grid](*arguments, **constants), len(arguments), constants)
            return
        x, y, z = (*grid, 1, 1)[:3]
        stream = active.get_current_stream(device)
        launch.run(
            x, y, z, stream, launch.function, launch.metadata, None, None, None,
            *descriptors, *addresses, *numbers, *launch.constants,
        )  # fmt: skip

    def _remember(self, key: tuple[Any, ...], compiled: Any, num_arguments: int, constants: dict[str, Any]) -> None:
        if not isinstance(compiled, CompiledKernel) or compiled.metadata.target.backend not in BACKENDS:
            return
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        last = tuple(constants[name] for name in self.function.arg_names[num_arguments:])
        run: Any = compiled.run
        self._remembered[key] = _Launch(run, compiled.function, compiled.packed_metadata, last)


def _places(arguments: tuple[Any, ...]) -> tuple[int, int]:
    """Where tensors begin and where numbers do."""
    kinds = [2 if isinstance(each, int | float) else int(isinstance(each, Tensor)) for each in arguments]
    assert kinds == sorted(kinds), "a kernel takes descriptors, tensors and numbers, in this order"
    return kinds.count(0), len(kinds) - kinds.count(2)


def _past_alignment(address: int) -> int:
    return address % ALIGNMENT


def _description(descriptor: Any) -> tuple[Any, ...]:
    base = descriptor.base
    return base.dtype, base.get_device(), *descriptor.shape, *descriptor.strides, *descriptor.block_shape


def _is_watched() -> bool:
    """Whether somebody wants to hear of each launch, which Triton itself tells them."""
    hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return any(getattr(hook, "calls", hook) for hook in hooks)
