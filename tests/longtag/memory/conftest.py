"""A small model with any levers, and one training step of it."""

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from longtag.data.source import TokenIds
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from sparse_attention import Layout, patterns

from .late_copies import LateCopies

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Of what needs an operator made of kernels: where there is a GPU, these are compiled and take nothing else."""

NUM_TOKENS = 37
NUM_CLASSES = 7


def small_model(levers: Levers | None = None, **options: Any) -> TokenClassifier:
    """Three layers, four heads, rotary positions and dropout, with the same weights every time."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "inputs": TokenIds(5),
        "num_classes": NUM_CLASSES,
        "pattern": functools.partial(patterns.window, window=2, layout="index_list"),
        "num_layers": 3,
        "num_heads": 4,
        "d_model": 32,
        "d_ff": 48,
        "dropout": 0.2,
        "position": "rotary",
    }
    return TokenClassifier(**(defaults | options), levers=levers)


def cost_and_gradients(
    model: TokenClassifier, loss: TokenLoss | None = None, num_tokens: int = NUM_TOKENS
) -> dict[str, torch.Tensor]:
    """The cost of two random sequences and the gradient of every parameter, by name."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, (2, num_tokens), generator=generator)
    labels = torch.randint(NUM_CLASSES, (2, num_tokens), generator=generator)
    labels[:, ::5] = -100
    ids, labels = ids.to(model.head.weight.device), labels.to(model.head.weight.device)
    torch.manual_seed(1)
    cost = cost_of_tokens(model.head, loss or TokenLoss(), model.encode(ids), labels, tile=model.levers.tile_tokens)
    parameters = dict(model.named_parameters())
    gradients = torch.autograd.grad(cost, list(parameters.values()))
    return {"cost": cost.detach(), **dict(zip(parameters, gradients, strict=True))}


def assert_equal_to(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], relative: float = 1e-5) -> None:
    """Each gradient is off by at most `relative` of its length."""
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= relative * gradient.norm() + 1e-12, name


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors are computed faster so, above all where other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def keep_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same operations in the same order, so with the same random draws, but nothing is run a second time."""
    for module in ("checkpointing", "tiles"):
        monkeypatch.setattr(f"longtag.memory.{module}.recomputed", lambda function, *args, draws: function(*args))


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[LateCopies]:
    """Tensors on the CPU are moved as if it were a device, and nobody meets a copy that is under way."""
    copies = LateCopies()
    monkeypatch.setattr("longtag.memory.offload.copies_for", lambda tensor: copies)
    yield copies
    copies.run_all()
    assert copies.faults == []


def per_head_layouts(num_tokens: int) -> dict[str, Layout]:
    """Patterns of four heads that differ from head to head, one for each kind of layout that can hold them."""
    from sparse_attention import BlockSparse, IndexList, PerHead

    generator = torch.Generator().manual_seed(5)
    table = torch.randint(-1, num_tokens, (4, num_tokens, 3), generator=generator)
    blocks = -(-num_tokens // 16)
    seen = torch.rand(4, blocks, blocks, generator=generator) < 0.6
    head, row, column = seen.nonzero(as_tuple=True)
    masked = torch.where(torch.rand(head.shape, generator=generator) < 0.5, 0, -1)
    words = torch.randint(2**16, (1, 16, 1), generator=generator).int()
    block_sparse = BlockSparse(
        head * blocks + row, column, masked, words, block_size=16, num_tokens=num_tokens, num_heads=4
    )
    mixed = PerHead([IndexList(table[:3]), patterns.window(num_tokens, window=1)], [3, 1])
    return {"index list": IndexList(table), "block sparse": block_sparse, "per head": mixed}
