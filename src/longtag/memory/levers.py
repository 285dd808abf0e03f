"""Which of the ways to save memory a model uses: the config group `memory`."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from longtag.errors import UsageError

Checkpoint = Literal["none", "blocks", "selective", "auto"]
Residual = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class Levers:
    """What a model keeps for backward, and what it computes again. Rounding apart, none changes what is computed.

    A tensor below is one of (batch, N, d_model) of two bytes an element, and counts are for blocks of width 768 with
    d_ff 2048 in mixed precision (docs/memory.md has the peaks as well); in float32 they double or nearly so. Costs in
    time are counted in matrix products: a step without levers has three times those of its forward pass.

    checkpoint:       "none" keeps all activations of a block: 17.5 tensors.
                      "selective" keeps what enters a block and its attention output, 3 tensors, and runs everything
                      but attention itself a second time: q, k and v when the gradient of attention asks for them.
                      "blocks" keeps what enters every `checkpoint_every` blocks, 2 tensors, and runs the blocks a
                      second time in backward. Both: four thirds of the products.
                      "auto" chooses for each block, and tiles only where they are needed: the fastest that fits into
                      `budget_gib`. It stands for a choice to be made (`longtag.memory.estimate.plan`) before a model
                      is built.
    budget_gib:       memory of the device that "auto" may fill; None is what is free when the run starts.
    checkpoint_every: blocks that "blocks" recomputes together. While their backward runs, the activations of so many
                      blocks are held: worth raising for many blocks of few activations.
    tile_tokens:      tokens at a time in all that is local to a token: the output projection, residual sums, norms and
                      feed-forward network of a block as one piece, the last norm, head and loss. Each tile keeps what
                      enters it and is computed again in backward: a block keeps 6 tensors, and hidden features and
                      logits exist for one tile only. The products of these parts are done a second time, on a CPU
                      inside a checkpointed block a third. Dropout draws its masks tile by tile. None: all at once.
    tile_heads:       heads at a time, at most, through projection, rotation, attention and their share of the output
                      projection: q, k and v of other heads do not exist meanwhile. All of this, attention too, is done
                      again in backward, and in mixed precision the sum over the groups is rounded once a group. None:
                      all heads at once.
    offload:          what "blocks" keeps, or all three tensors of "selective", waits in host memory, from where a CUDA
                      device fetches it in time. What the last two pieces keep stays. On a CPU nothing is moved.
    residual:         dtype of what runs from block to block under autocast, where norms give float32. "bfloat16" halves
                      the tensors that checkpointing keeps, and rounds them once a norm, or once a residual sum where
                      norms come first: 0.4 % an element. Without autocast it changes nothing.

    Raises UsageError, naming the option, for numbers below 1 and for levers that contradict each other.
    """

    checkpoint: Checkpoint = "none"
    budget_gib: float | None = None
    checkpoint_every: int = 1
    tile_tokens: int | None = None
    tile_heads: int | None = None
    offload: bool = False
    residual: Residual = "float32"

    def __post_init__(self) -> None:
        for name, allowed in (("checkpoint", get_args(Checkpoint)), ("residual", get_args(Residual))):
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name}={getattr(self, name)}: expected one of {', '.join(allowed)}")
        for name, unit in (("checkpoint_every", "blocks"), ("tile_tokens", "tokens"), ("tile_heads", "heads")):
            value = getattr(self, name)
            if value is not None and value < 1:
                whole = "" if name == "checkpoint_every" else ", or null for all of them at once"
                raise UsageError(f"{name}={value}: expected a number of {unit} from 1 up{whole}")
        if self.budget_gib is not None and not 0 < self.budget_gib < math.inf:
            raise UsageError(
                f"budget_gib={self.budget_gib}: expected a number of GiB above 0, or null for what the card has free"
            )
        if self.budget_gib is not None and self.checkpoint != "auto":
            raise UsageError(
                f"budget_gib={self.budget_gib}: counts only where it is chosen what to keep, and "
                f"memory.checkpoint={self.checkpoint}; give memory.checkpoint=auto, or memory.budget_gib=null"
            )
        if self.checkpoint_every > 1 and self.checkpoint != "blocks":
            raise UsageError(
                f"checkpoint_every={self.checkpoint_every}: counts only where blocks are recomputed whole, and "
                f"memory.checkpoint={self.checkpoint}; give memory.checkpoint=blocks, or memory.checkpoint_every=1"
            )
        if self.tile_heads is not None and self.checkpoint == "selective":
            raise UsageError(
                f"tile_heads={self.tile_heads}: recomputes the attention output that memory.checkpoint=selective "
                f"keeps; give memory.checkpoint=blocks or none, or memory.tile_heads=null"
            )
        if self.offload and self.checkpoint == "none":
            raise UsageError(
                "offload=true: moves what checkpointing keeps, and memory.checkpoint=none keeps everything; give "
                "memory.checkpoint=blocks or selective, or memory.offload=false"
            )

    @property
    def blocks_recomputed_together(self) -> int:
        """0 where blocks are not recomputed as a whole."""
        return self.checkpoint_every if self.checkpoint == "blocks" else 0

    @property
    def selective(self) -> bool:
        """Whether a block keeps its attention output and recomputes what is around it."""
        return self.checkpoint == "selective"

    @property
    def recomputes_rows(self) -> bool:
        """Whether a block recomputes what is local to a token piece by piece."""
        return self.selective or self.tile_tokens is not None
