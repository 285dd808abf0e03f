"""The sparse Transformer: plain modules that need neither Lightning nor Hydra."""

from longtag.model.classifier import TokenClassifier

__all__ = ["TokenClassifier"]
