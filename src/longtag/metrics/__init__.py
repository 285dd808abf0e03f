"""Metrics of token classification from one streaming confusion matrix: no logits are kept."""

from longtag.metrics.scores import Scores
from longtag.metrics.token_metrics import TokenMetrics

__all__ = ["Scores", "TokenMetrics"]
