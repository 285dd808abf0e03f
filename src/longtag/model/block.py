"""One layer of the encoder: attention, then a feed-forward network, each on a residual branch."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from longtag.memory import Levers
from longtag.memory.residual import narrowed, sum_to_norm
from longtag.memory.tiles import by_tiles
from longtag.model.attention import SparseSelfAttention
from longtag.model.rotary import Rotation
from sparse_attention import Layout

Norm = Literal["post", "pre"]


class FeedForward(nn.Module):
    """linear2(dropout(relu(linear1(x)))): (batch, N, d_model) -> (batch, N, d_model)."""

    def __init__(self, *, d_model: int, d_ff: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, d_ff)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        # ReLU commutes with dropout; in this order and in place, one (N, d_ff) tensor is kept for backward, not two.
        return self.linear2(F.relu_(self.dropout(self.linear1(x))))


class Block(nn.Module):
    """A Transformer layer with sparse attention.

    norm="post", as in Vaswani et al. (2017):  x = norm(x + dropout(branch(x))) for attention, then feed-forward.
    norm="pre", as in Xiong et al. (2020):     x = x + dropout(branch(norm(x))); the encoder norms once at its end.
    """

    def __init__(
        self,
        *,
        d_model: int,
        num_heads: int,
        d_ff: int,
        dropout: float = 0.1,
        norm: Norm = "post",
        implementation: str = "auto",
        levers: Levers | None = None,
    ) -> None:
        super().__init__()
        self.levers = levers or Levers()
        self.attention = SparseSelfAttention(
            d_model=d_model, num_heads=num_heads, implementation=implementation, levers=self.levers
        )
        self.feed_forward = FeedForward(d_model=d_model, d_ff=d_ff, dropout=dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm == "pre"

    def forward(self, x: Tensor, layout: Layout, rotation: Rotation | None = None) -> Tensor:
        """(batch, N, d_model) -> (batch, N, d_model)."""
        attended = self.attention.attend(x, layout, rotation, self.norm1 if self.norm_first else None)
        if not self.levers.recomputes_rows:
            return self._behind_attention(x, attended)
        draws = self.training and self.dropout.p > 0
        rows, attended_rows = x.flatten(0, 1), attended.flatten(0, 1)
        del attended
        out = by_tiles(self._behind_attention, rows, attended_rows, tile=self.levers.tile_tokens, draws=draws)
        return out.view(x.shape)

    def _behind_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows attention, which is local to a token: (..., d_model) each -> (..., d_model)."""
        residual = self.levers.residual
        if self.norm_first:
            x = x + self.dropout(self.attention.finish(attended))
            return narrowed(x + self.dropout(self.feed_forward(self.norm2(x))), residual)
        x = sum_to_norm(x, self.dropout(self.attention.finish(attended)), residual)
        x = narrowed(self.norm1(x), residual)
        return narrowed(self.norm2(sum_to_norm(x, self.dropout(self.feed_forward(x)), residual)), residual)
