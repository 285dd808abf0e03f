"""Sines and cosines of token positions, for any number of tokens.

Legend: n tokens, f frequencies, d width of the model.
"""

import math

import torch
from torch import Tensor

LONGEST_PERIOD = 10_000.0
"""The slowest wave turns once in about 2 pi times this many tokens; the value of Vaswani et al. (2017)."""


def waves(num_tokens: int, num_frequencies: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of position * LONGEST_PERIOD^(-i / f), i = 0 .. f - 1: two float32 tensors (n, f).

    Angles in float32 are off by 0.006 radian at position 100,000 and by 0.3 at 5,000,000. Only about 2 sqrt(n) of them
    are formed, therefore in float64, and combined by the addition theorem.
    """
    exponents = torch.arange(num_frequencies, dtype=torch.float64, device=device) / num_frequencies
    frequencies = LONGEST_PERIOD**-exponents
    stride = math.isqrt(num_tokens - 1) + 1
    steps = torch.arange(stride, dtype=torch.float64, device=device)[:, None]
    near, far = steps * frequencies, steps * stride * frequencies
    near_cos, near_sin = near.cos().float(), near.sin().float()
    far_cos, far_sin = far.cos().float()[:, None], far.sin().float()[:, None]
    cos = far_cos * near_cos - far_sin * near_sin
    sin = far_sin * near_cos + far_cos * near_sin
    return cos.flatten(0, 1)[:num_tokens], sin.flatten(0, 1)[:num_tokens]


def sinusoidal(num_tokens: int, d_model: int, device: torch.device) -> Tensor:
    """(n, d) position vectors: sines in the even features, cosines in the odd ones (Vaswani et al., 2017)."""
    cos, sin = waves(num_tokens, (d_model + 1) // 2, device)
    return torch.stack((sin, cos), dim=-1).flatten(1)[:, :d_model]
