"""A running mean of the weights, which is what is validated, tested and kept in checkpoints."""

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from longtag.errors import UsageError


class Averaging(WeightAveraging):
    """Lightning's callback, with an exponential mean (`torch.optim.swa_utils`) on the device of the weights.

    decay: share of the mean that stays at each step; it reaches some 1 / (1 - decay) steps back.

    Raises UsageError for a decay that is no such share.
    """

    def __init__(self, *, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UsageError(f"decay={decay}: expected a share from 0 to less than 1, such as 0.998")
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Made in `setup`, where the model is still on the host, in float32. Left there, it would make every step wait
        # for a copy.
        if self._average_model is not None:
            self._average_model.to(pl_module.device, next(pl_module.parameters()).dtype)

    @property
    def mean(self) -> nn.Module | None:
        """The model with the mean of the weights, while it trains."""
        return self._average_model


def means_of(trainer: L.Trainer) -> list[nn.Module]:
    """The models that callbacks of a trainer keep beside its own."""
    callbacks: list[L.Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    means = [callback.mean for callback in callbacks if isinstance(callback, Averaging)]
    return [mean for mean in means if mean is not None]
