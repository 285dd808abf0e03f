"""Hugging Face's sparse attention layers as functions of q, k, v (batch, heads, N, head_dim), for benchmarks and tests.

Their projections give the tensors at hand, whatever they are applied to: what is compared is attention alone.
"""

# transformers is the extra `peers`.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BigBirdConfig, LongformerConfig
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention


class Given(nn.Module):
    """In place of a projection."""

    def __init__(self, result: Tensor) -> None:
        super().__init__()
        self.result = result

    def forward(self, _: Tensor) -> Tensor:
        return self.result


class Longformer:
    """LongformerSelfAttention with `window` positions on each side; the first `num_global` tokens are global.

    Global tokens have projections of their own there, which are given the same tensors. The layer takes windows of 2 or
    more, and lengths that are a multiple of twice the window.
    """

    def __init__(self, *, window: int, num_global: int = 0) -> None:
        self.window, self.num_global = window, num_global

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, head_dim = q.shape
        config = LongformerConfig(
            hidden_size=heads * head_dim,
            num_attention_heads=heads,
            attention_window=[2 * self.window],
            attention_probs_dropout_prob=0.0,
        )
        layer = LongformerSelfAttention(config, layer_id=0)
        for name, tensor in (("query", q), ("key", k), ("value", v)):
            # Sequence first, and copies, since the layer scales its queries in place.
            rows = tensor.permute(2, 0, 1, 3).reshape(length, batch, -1)
            setattr(layer, name, Given(rows.clone()))
            setattr(layer, f"{name}_global", Given(rows[: self.num_global if name == "query" else length].clone()))
        is_global = torch.zeros(batch, length, dtype=torch.bool, device=q.device)
        is_global[:, : self.num_global] = True
        out = layer(
            q.new_zeros(batch, length, heads * head_dim),
            attention_mask=10_000.0 * is_global,
            is_index_masked=torch.zeros_like(is_global),
            is_index_global_attn=is_global,
            is_global_attn=self.num_global > 0,
        )[0]
        return out.view(batch, length, heads, head_dim).transpose(1, 2)


class BigBird:
    """BigBirdBlockSparseAttention: its core from q, k, v to the output, without padding.

    training: draw blocks; in evaluation the layer lists block 0 in place of each random block.
    given:    blocks to use, (heads, R - 2, num_random) without the first and last row, where none shall be drawn.

    `random_blocks` holds the blocks of the last call, in that shape.
    """

    def __init__(
        self,
        *,
        heads: int,
        head_dim: int,
        block_size: int,
        num_random: int,
        seed: int = 0,
        training: bool = True,
        given: Tensor | None = None,
    ) -> None:
        config = BigBirdConfig(
            hidden_size=heads * head_dim,
            num_attention_heads=heads,
            block_size=block_size,
            num_random_blocks=num_random,
        )
        self.block_size = block_size
        self.layer = _Recording(config, seed).train(training)
        self.layer.given = None if given is None else list(given.cpu().numpy())
        self._masks: tuple[Any, tuple[Tensor, ...]] | None = None

    @property
    def random_blocks(self) -> Tensor:
        return self.layer.random_blocks

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, length, head_dim = q.shape
        for name, tensor in (("query", q), ("key", k), ("value", v)):
            setattr(self.layer, name, Given(tensor.transpose(1, 2).reshape(batch, length, -1)))
        blocked, band, from_mask, to_mask = self._masks_for(q)
        hidden = q.new_empty(1).expand(batch, length, heads * head_dim)
        out = self.layer(hidden, band, from_mask, to_mask, blocked, blocked)[0]
        return out.view(batch, length, heads, head_dim).transpose(1, 2)

    def draw(self, num_tokens: int) -> Any:
        """What a forward pass in training does to choose its blocks, for lengths other than 1024, 3072 and 4096."""
        layer, size = self.layer, self.block_size
        lengths, counts = layer._get_rand_attn_plan(num_tokens, size, layer.num_random_blocks)
        return layer._bigbird_block_rand_mask_with_head(
            num_tokens, num_tokens, size, size, layer.num_attention_heads, lengths, counts
        )

    def _masks_for(self, q: Tensor) -> tuple[Tensor, ...]:
        """The model makes them once for all layers, so a call after the first finds them made."""
        key = (q.shape[0], q.shape[2], q.dtype, q.device)
        if self._masks is None or self._masks[0] != key:
            masks = BigBirdModel.create_masks_for_block_sparse_attn(q.new_ones(key[:2]), self.block_size)
            self._masks = key, masks
        return self._masks[1]


class _Recording(BigBirdBlockSparseAttention):
    """Keeps the blocks that it used, and uses given ones."""

    given: list[Any] | None = None

    def _bigbird_block_rand_mask_with_head(self, *args: Any, **options: Any) -> list[Any]:
        return self.given or super()._bigbird_block_rand_mask_with_head(*args, **options)

    def _create_rand_mask_from_inputs(self, from_mask: Tensor, to_mask: Tensor, blocks: Tensor, *sizes: int) -> Tensor:
        self.random_blocks = blocks[0]
        return BigBirdBlockSparseAttention._create_rand_mask_from_inputs(from_mask, to_mask, blocks, *sizes)
