"""What the reference implementation holds in memory: never (N, n, d), and for backward only its inputs."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparse_attention import sparse_attention
from sparse_attention.reference import index_list as reference
from sparse_attention.testing import Attention, awkward_layout, eager_attention, random_inputs

TOKENS, SLOTS, HEAD_DIM, HEADS = 2048, 16, 64, 2


class LargestTensor(TorchDispatchMode):
    """Remembers how many elements the largest storage has that any operator returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


def largest_tensor_of_a_training_step(attention: Attention, dtype: torch.dtype) -> int:
    inputs = random_inputs(num_tokens=TOKENS, head_dim=HEAD_DIM, heads=HEADS, dtype=dtype)
    leaves = inputs.leaves()
    with LargestTensor() as largest:
        out, lse = attention(*leaves)
        torch.autograd.grad((out, lse), leaves, (inputs.grad_out, inputs.grad_lse.to(lse.dtype)))
    return largest.elements


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_of_a_training_step_is_larger_than_an_input(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reference.CHUNK_ELEMENTS, "cpu", 2**16)
    layout = awkward_layout("drawn at random", num_tokens=TOKENS, num_slots=SLOTS, full_rows=(0, 1))

    def attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return sparse_attention(q, k, v, layout, implementation="reference", return_lse=True)

    assert largest_tensor_of_a_training_step(attention, dtype) == HEADS * TOKENS * HEAD_DIM


def test_the_measure_sees_what_eager_gather_holds() -> None:
    layout = awkward_layout("drawn at random", num_tokens=TOKENS, num_slots=SLOTS)
    largest = largest_tensor_of_a_training_step(lambda q, k, v: eager_attention(q, k, v, layout), torch.float32)
    assert largest >= HEADS * TOKENS * SLOTS * HEAD_DIM


def test_backward_keeps_the_inputs_alone() -> None:
    layout = awkward_layout("drawn at random", num_tokens=64, num_slots=4)
    inputs = random_inputs(num_tokens=64, head_dim=8)
    leaves = inputs.leaves()
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.data_ptr())
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        out = sparse_attention(*leaves, layout, implementation="reference")
    assert out.requires_grad
    assert saved == [leaf.data_ptr() for leaf in leaves]
