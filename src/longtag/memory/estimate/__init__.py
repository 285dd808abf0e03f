"""What a training step will need, counted before it is made, on any machine."""

from longtag.memory.estimate.estimate import Estimate, estimate
from longtag.memory.estimate.subject import Subject

__all__ = ["Estimate", "Subject", "estimate"]
