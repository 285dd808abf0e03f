"""The training loss under the name of its track, so that a chart over runs of several tracks does not mix them."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from longtag.tagger import Tagger


class TrackLoss(Callback):
    """Logs ``train/loss_<track>``, the same figure as ``train/loss``, for data that has tracks."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Tagger, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        track = getattr(trainer.datamodule.source, "track", None)  # pyright: ignore[reportAttributeAccessIssue]
        if track is not None:
            # Not from trainer.callback_metrics, which gathers everything anew while the device idles.
            loss = float(pl_module.last_loss)
            pl_module.log_dict({f"train/loss_{track.name}": loss}, on_step=True, on_epoch=False)
