"""What a kernel remembers of its launches, with a stand-in for what Triton compiles and launches."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import driver

from sparse_attention.triton import kernel as kernel_module
from sparse_attention.triton.kernel import Kernel


class Driver:
    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 7


class Function:
    """In place of a function made by `triton.jit`: counts what Triton is asked to launch."""

    arg_names = ("x_ptr", "y_ptr", "size", "factor", "BLOCK")

    def __init__(self, backend: str = "cuda") -> None:
        self.backend = backend
        self.launches: list[tuple[Any, ...]] = []
        self.direct: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]):
        def launch(*arguments: Any, **constants: Any) -> CompiledKernel:
            self.launches.append((grid, arguments, constants))
            compiled = CompiledKernel.__new__(CompiledKernel)
            compiled._run = lambda *values: self.direct.append(values)  # pyright: ignore[reportAttributeAccessIssue]
            compiled.function, compiled.packed_metadata = "function", "metadata"
            compiled.metadata = SimpleNamespace(target=SimpleNamespace(backend=self.backend))  # pyright: ignore
            return compiled

        return launch


@pytest.fixture
def function(monkeypatch: pytest.MonkeyPatch) -> Function:
    monkeypatch.setattr(driver, "_active", Driver())
    return Function()


@pytest.fixture
def kernel(function: Function) -> Kernel:
    kernel = Kernel(function)
    kernel._is_compiled = True
    return kernel


def launch(kernel: Kernel, x: Tensor, y: Tensor, size: int = 5, factor: float = 0.5, **constants: int) -> None:
    kernel[(3, 2)](x, y, size, factor, **{"BLOCK": 64, "num_warps": 4, **constants})


X, Y = torch.empty(2, 64).unbind()


def test_a_launch_like_an_earlier_one_does_not_go_through_triton(kernel, function):
    for _ in range(3):
        launch(kernel, X, Y)
    assert len(function.launches) == 1
    values = (3, 2, 1, 7, "function", "metadata", None, None, None, X.data_ptr(), Y.data_ptr(), 5, 0.5, 64)
    assert function.direct == [values] * 2


def test_other_memory_of_the_same_kind_is_handed_on(kernel, function):
    launch(kernel, X, Y)
    launch(kernel, Y, X)
    assert len(function.launches) == 1
    assert function.direct[0][9:11] == (Y.data_ptr(), X.data_ptr())


@pytest.mark.parametrize(
    "other",
    [
        {"x": X.to(torch.bfloat16)},
        {"x": X[1:]},
        {"size": 16},
        {"size": 2**31},
        {"factor": 0.25},
        {"BLOCK": 32},
        {"num_warps": 8},
    ],
    ids=["dtype", "alignment", "divisibility", "width", "factor", "constant", "option"],
)
def test_triton_is_asked_about_whatever_it_may_compile_anew(kernel, function, other):
    launch(kernel, X, Y)
    launch(kernel, **{"x": X, "y": Y, **other})
    assert len(function.launches) == 2
    assert not function.direct


def test_memory_elsewhere_is_left_to_triton_to_refuse(kernel, function, monkeypatch):
    launch(kernel, X, Y)
    monkeypatch.setattr(Tensor, "get_device", lambda tensor: 0 if tensor is Y else -1)
    launch(kernel, X, Y)
    assert len(function.launches) == 2


def test_where_launchers_may_not_take_addresses_triton_launches_everything(kernel, function):
    function.backend = "other"
    launch(kernel, X, Y)
    launch(kernel, X, Y)
    assert len(function.launches) == 2


def test_another_current_device_has_kernels_of_its_own(kernel, function, monkeypatch):
    launch(kernel, X, Y)
    monkeypatch.setattr(Driver, "get_current_device", lambda self: 1)
    launch(kernel, X, Y)
    assert len(function.launches) == 2


def test_whoever_watches_launches_is_told_by_triton(kernel, function):
    def watch(metadata: Any) -> None:
        pass

    launch(kernel, X, Y)
    knobs.runtime.launch_enter_hook.add(watch)
    try:
        launch(kernel, X, Y)
    finally:
        knobs.runtime.launch_enter_hook.remove(watch)
    assert len(function.launches) == 2
    launch(kernel, X, Y)
    assert len(function.direct) == 1


def test_what_is_remembered_does_not_grow_without_end(kernel, function, monkeypatch):
    monkeypatch.setattr(kernel_module, "MOST_REMEMBERED", 2)
    for size in range(5):
        launch(kernel, X, Y, size)
    assert len(kernel._remembered) <= 2
    launch(kernel, X, Y, 4)
    assert len(function.direct) == 1


def test_arguments_out_of_order_are_a_fault_of_the_caller(kernel):
    with pytest.raises(AssertionError, match="in this order"):
        kernel[(1,)](X, 5, Y, 0.5, BLOCK=64)


@Kernel
@triton.jit
def _scale_kernel(x_ptr, y_ptr, size, factor, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + place, tl.load(x_ptr + place, mask=place < size) * factor, mask=place < size)


@pytest.mark.gpu
def test_remembered_launches_compute_the_same():
    for size, factor in [(100, 2.0), (100, 2.0), (77, 2.0), (77, 3.0), (77, 3.0)]:
        x, y = torch.rand(128, device="cuda"), torch.zeros(128, device="cuda")
        _scale_kernel[(2,)](x, y, size, factor, BLOCK=64)
        assert torch.equal(y[:size], x[:size] * factor)
        assert not y[size:].any()


@pytest.mark.gpu
def test_memory_of_the_host_is_refused_after_launches_as_before():
    x, y = torch.rand(128, device="cuda"), torch.zeros(128, device="cuda")
    _scale_kernel[(2,)](x, y, 128, 2.0, BLOCK=64)
    with pytest.raises(ValueError, match="cannot be accessed from Triton"):
        _scale_kernel[(2,)](x.cpu(), y, 128, 2.0, BLOCK=64)
