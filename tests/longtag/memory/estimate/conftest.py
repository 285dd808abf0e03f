"""Subjects to estimate, small ones."""

import functools
from typing import Any

from longtag.data.source import TokenIds
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.memory.estimate import Subject
from longtag.model import TokenClassifier
from longtag.optim import Optimization
from sparse_attention import patterns

NUM_TOKENS, WIDTH, D_FF, HEADS, CLASSES = 2048, 64, 128, 4, 50


def small_subject(levers: Levers | None = None, **options: Any) -> Subject:
    """Two thousand tokens, width 64, four heads, five blocks, unless said otherwise."""
    model = {"d_model": WIDTH, "d_ff": D_FF, "num_heads": HEADS, "dropout": 0.1, "position": "rotary"}
    model |= options.pop("model", {})
    defaults: dict[str, Any] = {
        "build_model": functools.partial(TokenClassifier, inputs=TokenIds(64), num_classes=CLASSES, **model),
        "loss": TokenLoss(),
        "optimization": Optimization(**options.pop("optim", {})),
        "inputs": TokenIds(64),
        "pattern": functools.partial(patterns.random, keys_per_query=8),
        "implementation": "auto",
        "num_layers": 5,
        "levers": levers or Levers(),
        "tokens": NUM_TOKENS,
    }
    return Subject(**(defaults | options))
