"""AdamW, its schedule, and the precision of its states and of the weights that it updates."""

from longtag.optim.optimization import Optimization

__all__ = ["Optimization"]
