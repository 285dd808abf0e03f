"""The norm of the gradient of every optimizer step."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from longtag.tagger import Tagger


class GradientNorm(Callback):
    """Logs ``optim/gradient_norm``, the norm of all gradients together before clipping.

    It is the one that clipping computes, read when the step is over. Absent with ``optim.in_backward``, where no two
    gradients need exist at the same time.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Tagger, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.gradient_norm is not None:
            pl_module.log_dict({"optim/gradient_norm": float(pl_module.gradient_norm)}, on_step=True, on_epoch=False)
