"""What is estimated: everything of a run that decides what a training step holds."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from longtag.data.source import TokenIds, Vectors
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.model import TokenClassifier
from longtag.model.layout_cache import Pattern
from longtag.optim import Optimization

BuildModel = Callable[..., TokenClassifier]
"""TokenClassifier with all its options but these: pattern, implementation, num_layers, levers."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One training step of a model.

    build_model:     see `BuildModel`; options that are given to it once more replace those of the config.
    loss:            what the head's logits go through.
    optimization:    makes the optimizer.
    inputs:          what the source gives.
    pattern:         from a number of tokens to the layout.
    implementation:  of attention, "auto" or one by name.
    num_layers:      blocks of the model.
    levers:          as the config has them.
    levers_of_blocks: of each block, where they are not all alike.
    tokens:          in a crop.
    batch_size:      crops in a batch.
    accumulates:     whether gradients of earlier batches are there already.
    clips:           whether the norm of all gradients is limited.
    averages:        whether a running mean of the weights is kept beside them.
    precision:       one of Lightning's.
    device_type:     "cuda" or "cpu": where the step is to be made.
    """

    build_model: BuildModel
    loss: TokenLoss
    optimization: Optimization
    inputs: TokenIds | Vectors
    pattern: Pattern
    implementation: str
    num_layers: int
    levers: Levers
    tokens: int
    levers_of_blocks: tuple[Levers, ...] | None = None
    batch_size: int = 1
    accumulates: bool = False
    clips: bool = True
    averages: bool = False
    precision: str = "bf16-mixed"
    device_type: str = "cuda"

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What matrix products compute in where it is not the dtype of the weights."""
        return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)

    @property
    def weight_dtype(self) -> torch.dtype:
        return {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}.get(
            self.precision, torch.float32
        )

    def new_inputs(self) -> torch.Tensor:
        """A batch as it is copied to the device, to be called where tensors have no data."""
        shape = (self.batch_size, self.tokens)
        if isinstance(self.inputs, TokenIds):
            return torch.zeros(shape, dtype=torch.int64)
        return torch.zeros(*shape, self.inputs.width)
