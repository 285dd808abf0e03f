"""How the weights start, so that a model learns from the first steps and at any depth."""

import torch
from torch import Tensor, nn

from longtag.model.attention import SparseSelfAttention
from longtag.model.block import FeedForward
from longtag.model.encoder import Encoder

AVERAGING_GAIN = 2.0
"""Attention averages: over n unrelated keys it leaves up to e / n of the values' variance. The gain makes up for that
at 8 keys."""


@torch.no_grad()
def initialise(embedding: nn.Module, encoder: Encoder, head: nn.Linear) -> None:
    """Unit variance in embedding, q, k, v, scores and logits; branches that fade with the depth of the encoder.

    All biases are 0 and all norms the identity.
    Head: small logits would make the first loss that of an even guess, but a head that has to grow first, by one
        learning rate a step, costs more of a short training than it saves.
    Branches: of unit variance in up to two layers, where they help from the start. Behind more of them a post-norm
        encoder passes no gradient to its first layers, since each norm shrinks what skips a branch, and Adam moves all
        branches at once; they start with the factor (2 / num_layers)^2, so that a deep encoder begins near the
        identity (compare Zhang et al., 2019, "Fixup Initialization").
    """
    branch_gain = min(1.0, (2 / len(encoder.blocks)) ** 2)
    for module in encoder.modules():
        if isinstance(module, SparseSelfAttention):
            _fill(module.qkv.weight)
            _fill(module.output.weight, AVERAGING_GAIN * branch_gain)
        elif isinstance(module, FeedForward):
            # ReLU keeps half of the second moment.
            _fill(module.linear1.weight, 2**0.5)
            _fill(module.linear2.weight, branch_gain)
    for module in (embedding, head):
        if isinstance(module, nn.Embedding | nn.Linear):
            _fill(module.weight)
    for part in (embedding, encoder, head):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)


def _fill(weight: Tensor, gain: float = 1.0) -> None:
    """Inputs of unit second moment give outputs of variance gain^2; in an embedding, its factor takes their place."""
    nn.init.normal_(weight, std=gain * weight.shape[1] ** -0.5)
