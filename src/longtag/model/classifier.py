"""The whole model: embedding, encoder and a linear head that gives logits for every token."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from longtag.data.source import TokenIds, Vectors
from longtag.errors import UsageError
from longtag.memory import Levers
from longtag.memory.residual import narrowed
from longtag.model.attention import head_dim
from longtag.model.block import Norm
from longtag.model.embedding import build_embedding
from longtag.model.encoder import Encoder
from longtag.model.initialisation import initialise
from longtag.model.layout_cache import LayoutCache, Pattern
from longtag.model.position import sinusoidal
from longtag.model.rotary import rotation
from sparse_attention import Layout, choose, explain

Position = Literal["none", "sinusoidal", "rotary"]


class TokenClassifier(nn.Module):
    """Labels every token of a sequence of any length.

    inputs:           what the source gives: token ids or vectors.
    num_classes:      classes that a token can have.
    pattern:          from a number of tokens to the layout of attention; called once per length.
    num_layers:       blocks in the encoder.
    num_heads:        attention heads; must divide d_model.
    d_model:          width of the model.
    d_ff:             width of the feed-forward network.
    dropout:          share of features dropped in training, from 0 up to but not including 1.
    norm:             "post" norms after each residual sum, "pre" before each branch.
    position:         "none", "sinusoidal" vectors added to the embedding, or "rotary" turns of q and k.
    project_inputs:   False takes vectors of width d_model as they are.
    implementation:   of sparse_attention: "auto" or one by name.
    levers:           what is kept for backward and what is computed again; None keeps everything.
    levers_of_blocks: the same for each block, where they are not all alike.
    fused:            what follows attention in few passes over memory, by Triton kernels where they run; False takes
                      torch's own operations one by one.

    Raises UsageError, naming the option, where a value is not allowed or two do not fit together.
    """

    def __init__(
        self,
        *,
        inputs: TokenIds | Vectors,
        num_classes: int,
        pattern: Pattern,
        num_layers: int = 1,
        num_heads: int = 1,
        d_model: int = 768,
        d_ff: int = 2048,
        dropout: float = 0.1,
        norm: Norm = "post",
        position: Position = "none",
        project_inputs: bool = True,
        implementation: str = "auto",
        levers: Levers | None = None,
        levers_of_blocks: Sequence[Levers] | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        _check_at_least(1, num_classes=num_classes, num_layers=num_layers, num_heads=num_heads)
        _check_at_least(1, d_model=d_model, d_ff=d_ff)
        _check_choice("norm", norm, get_args(Norm))
        _check_choice("position", position, get_args(Position))
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout={dropout}: expected a share from 0 up to but not including 1, such as 0.1")
        self.head_dim = head_dim(d_model, num_heads)
        self.num_heads = num_heads
        if position == "rotary" and self.head_dim % 2:
            raise UsageError(
                f"position=rotary turns pairs of features, but d_model={d_model} with num_heads={num_heads} gives "
                f"heads of odd width {self.head_dim}; choose an even width, or position=sinusoidal"
            )
        self.d_model = d_model
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.position = position
        self.implementation = implementation
        self.levers = levers or Levers()
        if self.levers.checkpoint == "auto":
            raise UsageError("checkpoint=auto: choose for this model first, with longtag.memory.estimate.plan")
        if levers_of_blocks is not None and len(levers_of_blocks) != num_layers:
            raise UsageError(f"levers_of_blocks: {len(levers_of_blocks)} for num_layers={num_layers} blocks")
        self.layouts = LayoutCache(pattern)
        self.embedding = build_embedding(inputs, d_model, project_inputs)
        self.encoder = Encoder(
            num_layers=num_layers,
            d_model=d_model,
            num_heads=num_heads,
            d_ff=d_ff,
            dropout=dropout,
            norm=norm,
            implementation=implementation,
            levers=self.levers,
            levers_of_blocks=levers_of_blocks,
            fused=fused,
        )
        self.head = nn.Linear(d_model, num_classes)
        initialise(self.embedding, self.encoder, self.head)

    def forward(self, inputs: Tensor) -> Tensor:
        """Ids (batch, N) or vectors (batch, N, width) -> logits (batch, N, num_classes); never softmaxed."""
        return self.head(self.encode(inputs))

    def encode(self, inputs: Tensor) -> Tensor:
        """Ids (batch, N) or vectors (batch, N, width) -> what the head reads, (batch, N, d_model)."""
        num_tokens, device = inputs.shape[1], inputs.device
        turn = rotation(num_tokens, self.head_dim, device) if self.position == "rotary" else None
        return self.encoder(self._embed(inputs), self.layouts.get(num_tokens, device), turn)

    def _embed(self, inputs: Tensor) -> Tensor:
        x = self.embedding(inputs)
        if self.position == "sinusoidal":
            x = x + sinusoidal(inputs.shape[1], x.shape[-1], inputs.device).to(x.dtype)
        # Here, because whoever calls the encoder holds what he gives it until it returns.
        return narrowed(x, self.levers.residual)

    def num_edges(self, num_tokens: int) -> int:
        """Attended (query, key) pairs of one layer, in the mean over its heads."""
        layout = self.layouts.get(num_tokens, torch.device("cpu"))
        return layout.num_edges // (layout.num_heads or 1)

    def explain(self, layout: Layout, device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
        """Which implementation of attention takes q, k and v of `dtype` on `device`, and a line that says why.

        Raises UsageError when the one asked for does not exist or cannot take them.
        """
        layout = layout.to(device)
        q = torch.empty(self.head_dim, dtype=dtype, device=device).expand(1, self.num_heads, layout.num_tokens, -1)
        try:
            chosen = choose(self.implementation, q, q, q, layout)
            return chosen, explain(q, q, q, layout) if self.implementation == "auto" else f"{chosen} (asked for)"
        except ValueError as error:
            raise UsageError(str(error)) from error


def _check_at_least(minimum: int, **options: int) -> None:
    for name, value in options.items():
        if value < minimum:
            raise UsageError(f"{name}={value}: expected {minimum} or more")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name}={value}: expected one of {', '.join(allowed)}")
