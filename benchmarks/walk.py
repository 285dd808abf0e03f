"""The counted figures of docs/memory.md's walk: what backward keeps, and what each way to keep less does to it.

    python -m benchmarks.walk --tokens 100000 --layers 12

One training step of batch 1, d_model 768, d_ff 2048, 12 heads, 1000 labels, bfloat16 autocast, dropout 0.1, over
tensors that have shapes and no data, on any machine. `kept` is what forward leaves for backward; `gradients` those that
exist when backward ends; `passes` the matrix products in units of those of one forward pass, attention left out.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.products import MatrixProducts
from longtag.data.source import Vectors
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from longtag.optim.adamw import AdamWInBackward
from sparse_attention import patterns

GIB = 2**30
Prepare = Callable[[TokenClassifier], object]


def freeze(*modules: nn.Module) -> None:
    for module in modules:
        module.requires_grad_(False)


def below(model: TokenClassifier) -> nn.ModuleList:
    return model.encoder.blocks[: len(model.encoder.blocks) // 2]


def above(model: TokenClassifier) -> nn.ModuleList:
    return model.encoder.blocks[len(model.encoder.blocks) // 2 :]


LEARNING: dict[str, Prepare] = {
    "everything learns": lambda model: None,
    "the lower half of the blocks is frozen": lambda model: freeze(*below(model)),
    "the upper half of the blocks is frozen": lambda model: freeze(*above(model)),
    "only the head learns": lambda model: freeze(model.encoder),
    "nothing learns": lambda model: freeze(model),
}
RECOMPUTING = {
    "none": Levers(),
    "blocks": Levers(checkpoint="blocks"),
    "blocks checkpoint_every=2": Levers(checkpoint="blocks", checkpoint_every=2),
    "selective": Levers(checkpoint="selective"),
    "blocks tile_tokens=8192 tile_heads=4": Levers(checkpoint="blocks", tile_tokens=8192, tile_heads=4),
}


class Step(NamedTuple):
    learning: int
    kept: int
    gradients: int
    passes: float


def step(tokens: int, layers: int, levers: Levers, prepare: Prepare, *, in_backward: bool = False) -> Step:
    """One step of a model that was prepared: forward, loss and backward, and the optimizer in it if that is asked."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = TokenClassifier(
            inputs=Vectors(768), num_classes=1000, pattern=patterns.dense, num_layers=layers, num_heads=12,
            d_model=768, d_ff=2048, dropout=0.1, position="rotary", project_inputs=False, levers=levers,
        )  # fmt: skip
        prepare(model)
        inputs, labels = torch.randn(1, tokens, 768), torch.zeros(1, tokens, dtype=torch.int64)

        def cost_of_step() -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                features = model.encode(inputs)
                return cost_of_tokens(model.head, TokenLoss(), features, labels, tile=levers.tile_tokens)

        with MatrixProducts() as of_forward, torch.no_grad():
            cost_of_step()

        def forward_and_backward() -> int:
            cost = cost_of_step()
            kept = live.now
            if cost.requires_grad:
                cost.backward()
            return kept

        with MatrixProducts() as of_step, LiveBytes() as live:
            if in_backward:
                optimizer = AdamWInBackward([{"params": list(model.parameters())}], lr=1e-3)
                kept = optimizer.step(forward_and_backward)
            else:
                kept = forward_and_backward()
        return Step(
            learning=sum(each.numel() for each in model.parameters() if each.requires_grad),
            kept=kept,
            gradients=sum(each.grad.nbytes for each in model.parameters() if each.grad is not None),
            passes=of_step.count / of_forward.count,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.walk", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=12)
    options = parser.parse_args(arguments)
    shape = options.tokens, options.layers
    print(f"torch {torch.__version__}; {options.tokens:,} tokens, {options.layers} layers\n")

    print("| what learns | learning parameters | kept, GiB | gradients, GiB | passes |\n|---|---|---|---|---|")
    for name, prepare in LEARNING.items():
        learning, kept, gradients, passes = step(*shape, Levers(), prepare)
        row = f"| {name} | {learning / 1e6:.1f} M | {kept / GIB:.2f} | {gradients / GIB:.3f} | {passes:.2f} |"
        print(row, flush=True)
    everything = LEARNING["everything learns"]
    left = step(*shape, Levers(), everything, in_backward=True).gradients
    print(f"\nstepped in backward: {left / GIB:.3f} GiB of gradients when it ends\n")

    print("| recomputed | kept, GiB | passes |\n|---|---|---|")
    for name, levers in RECOMPUTING.items():
        _, kept, _, passes = step(*shape, levers, everything)
        print(f"| {name} | {kept / GIB:.2f} | {passes:.2f} |", flush=True)


if __name__ == "__main__":
    main()
