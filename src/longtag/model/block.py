"""One layer of the encoder: attention, then a feed-forward network, each on a residual branch."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from longtag.fused import BehindAttention, Weights, behind_attention, product_dtype, why_not
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

    fused: all that follows attention in few passes over memory, where `longtag.fused.why_not` has nothing against it.
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
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.levers = levers or Levers()
        self.fused = fused
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
        if self.fused and why_not(x) is None:
            return self._forward_fused(x, layout, rotation)
        attended, x = self.attention.attend(x, layout, rotation, self._norm_of_attention)
        if not self.levers.recomputes_rows:
            return self._behind_attention(x, attended)
        draws = self.training and self.dropout.p > 0
        rows, attended_rows = x.flatten(0, 1), attended.flatten(0, 1)
        del attended
        out = by_tiles(self._behind_attention, rows, attended_rows, tile=self.levers.tile_tokens, draws=draws)
        return out.view(x.shape)

    def _forward_fused(self, x: Tensor, layout: Layout, rotation: Rotation | None) -> Tensor:
        norm = self._norm_of_attention
        attended, x = self.attention.attend(x, layout, rotation, norm, beside=norm is None)
        return behind_attention(x, attended, self._weights(), self._settings(x))

    @property
    def _norm_of_attention(self) -> nn.LayerNorm | None:
        return self.norm1 if self.norm_first else None

    def _weights(self) -> Weights:
        """What the fused kernels read; heads by groups have been through the output projection already."""
        output, first, second = self.attention.output, self.feed_forward.linear1, self.feed_forward.linear2
        projected = self.levers.tile_heads is not None
        mid, last = (self.norm2, None) if self.norm_first else (self.norm1, self.norm2)
        return Weights(
            out_weight=None if projected else output.weight,
            out_bias=None if projected else output.bias,
            mid_weight=mid.weight,
            mid_bias=mid.bias,
            weight1=first.weight,
            bias1=first.bias,
            weight2=second.weight,
            bias2=second.bias,
            last_weight=None if last is None else last.weight,
            last_bias=None if last is None else last.bias,
        )

    def _settings(self, x: Tensor) -> BehindAttention:
        product = product_dtype(x)
        stream = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            stream = torch.bfloat16 if self.levers.residual == "bfloat16" else torch.float32
        return BehindAttention(
            dropout=self.dropout.p if self.training else 0.0,
            eps=self.norm1.eps,
            product=product,
            stream=stream,
            # Recomputation of a whole block stops in front of what is recomputed by itself.
            recompute=self.levers.recomputes_rows or self.levers.blocks_recomputed_together == 1,
            # Groups of heads sum up what they make into a tensor that they do not keep.
            spends=self.levers.tile_heads is not None and self.levers.blocks_recomputed_together > 0,
            tile=self.levers.tile_tokens,
        )

    def _behind_attention(self, x: Tensor, attended: Tensor) -> Tensor:
        """All that follows attention, which is local to a token: (..., d_model) each -> (..., d_model)."""
        residual = self.levers.residual
        if self.norm_first:
            x = x + self.dropout(self.attention.finish(attended))
            return narrowed(x + self.dropout(self.feed_forward(self.norm2(x))), residual)
        x = sum_to_norm(x, self.dropout(self.attention.finish(attended)), residual)
        x = narrowed(self.norm1(x), residual)
        return narrowed(self.norm2(sum_to_norm(x, self.dropout(self.feed_forward(x)), residual)), residual)
