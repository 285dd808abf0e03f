"""Metrics of token classification from a few streaming sums: no logits are kept."""

from longtag.metrics.calibration import Calibration
from longtag.metrics.scores import Scores
from longtag.metrics.token_metrics import TokenMetrics

__all__ = ["Calibration", "Scores", "TokenMetrics"]
