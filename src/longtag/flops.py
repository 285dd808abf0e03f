"""Arithmetic that a training step needs, counted from the model's own shapes."""

from torch import nn

from longtag.model import TokenClassifier


def training_flops(model: TokenClassifier, num_tokens: int) -> int:
    """FLOPs of forward and backward over one crop, without recomputation.

    A matrix of m x n costs 2 m n a token; an edge costs 4 head_dim in every head (its score and its share of the
    output); backward costs twice forward (Kaplan et al. 2020, arXiv:2001.08361, table 1, with edges for N^2).
    """
    matrices = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    edges = model.num_edges(num_tokens) * model.num_heads * len(model.encoder.blocks)
    return 3 * (2 * matrices * num_tokens + 4 * model.head_dim * edges)
