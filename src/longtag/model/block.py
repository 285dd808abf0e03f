"""One layer of the encoder: attention, then a feed-forward network, each on a residual branch."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

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
    ) -> None:
        super().__init__()
        self.attention = SparseSelfAttention(d_model=d_model, num_heads=num_heads, implementation=implementation)
        self.feed_forward = FeedForward(d_model=d_model, d_ff=d_ff, dropout=dropout)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm == "pre"

    def forward(self, x: Tensor, layout: Layout, rotation: Rotation | None = None) -> Tensor:
        """(batch, N, d_model) -> (batch, N, d_model)."""
        if self.norm_first:
            x = x + self.dropout(self.attention(self.norm1(x), layout, rotation))
            return x + self.dropout(self.feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout(self.attention(x, layout, rotation)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))
