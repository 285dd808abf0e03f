"""A loss or a gradient that is not finite: the run stops and says where it came from, or the step is left out."""

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from longtag.data import CropDataModule
from longtag.errors import UsageError
from longtag.fault import find_fault, gradient_fault, non_finite_gradients
from longtag.tagger import Tagger


class NonFinite(Callback):
    """Looks at the end of each optimizer step, when the device has been waited for anyway, whether it was finite.

    The norm of the gradient decides: it is not finite if any part of it, or the loss, is not, and it is the same on all
    devices. Such a step has changed neither weights nor optimizer (`longtag.optim`). With float16 infinite gradients
    are usual, and the loss scaler leaves those steps out; there the loss decides. With ``optim.in_backward`` the loss
    decides too, and the weights are lost.

    Args:
        action: ``stop`` ends the run and names step, crop and layer; ``skip`` goes on without the step and logs
            ``optim/skipped_steps``, how many there were.
        most_in_a_row: with ``skip``, so many steps left out one behind the other stop the run all the same.
    """

    def __init__(self, *, action: Literal["stop", "skip"] = "stop", most_in_a_row: int = 10) -> None:
        if most_in_a_row < 1:
            raise UsageError(f"most_in_a_row={most_in_a_row}: expected a number of optimizer steps from 1 up")
        self.action = action
        self.most_in_a_row = most_in_a_row
        self._skipped, self._in_a_row = 0, 0
        self._losses: list[Tensor] = []
        self._steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Tagger, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._losses.append(outputs["loss"])
        if trainer.global_step == self._steps:
            return
        self._steps, losses, self._losses = trainer.global_step, torch.stack(self._losses), []
        finite = self._is_finite(trainer, pl_module, losses)
        if not finite:
            self._skipped, self._in_a_row = self._skipped + 1, self._in_a_row + 1
            if self.action == "stop" or self._in_a_row == self.most_in_a_row:
                raise UsageError(self._verdict(trainer, pl_module, losses))
            if trainer.is_global_zero:
                print(f"step {trainer.global_step} left out: it is not finite ({self._skipped} so far)", flush=True)
        else:
            self._in_a_row = 0
        if self.action == "skip":
            pl_module.log_dict({"optim/skipped_steps": float(self._skipped)}, on_step=True, on_epoch=False)

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self._skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._skipped = state_dict["skipped"]

    @staticmethod
    def _is_finite(trainer: L.Trainer, pl_module: Tagger, losses: Tensor) -> bool:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if pl_module.gradient_norm is not None and scaler is None:
            return bool(pl_module.gradient_norm.isfinite())
        num_bad = (~losses.isfinite()).sum()
        return not trainer.strategy.reduce(num_bad, reduce_op="sum")  # of this device alone until it is reduced

    def _verdict(self, trainer: L.Trainer, pl_module: Tagger, losses: Tensor) -> str:
        norm, left = pl_module.gradient_norm, non_finite_gradients(pl_module.model)
        figures = [f"loss {', '.join(f'{loss:.4g}' for loss in losses.tolist())}"]
        figures += [] if norm is None else [f"norm of the gradient {float(norm):.4g}"]
        in_backward = pl_module.optimization.in_backward
        suspects = _gather(trainer, _suspects(trainer, pl_module, len(losses), run_again=not in_backward))
        lines = [f"{crop}: {fault}" for crop, fault in suspects if fault]
        if in_backward:
            lines = [crop for crop, _ in suspects]
            lines += ["optim.in_backward=true has stepped with it already: the weights in memory are lost"]
        elif not lines:
            fault = gradient_fault(left) or "run once more, its batches are finite"
            lines = [*(crop for crop, _ in suspects), fault]
        advice = "the last checkpoint is as it was: give the same folder=... again with a lower optim.learning_rate"
        if self.action == "skip":
            lines += [f"{self._in_a_row} steps in a row were left out, see callbacks.non_finite.most_in_a_row"]
        elif not in_backward:
            advice += ", or with callbacks.non_finite.action=skip"
        return "\n".join([f"step {trainer.global_step} is not finite: {', '.join(figures)}", *lines, advice])


Suspect = tuple[str, str | None]
"""Where the crops of a batch lie, and what is wrong with it."""


def _suspects(trainer: L.Trainer, pl_module: Tagger, num_batches: int, *, run_again: bool) -> list[Suspect]:
    """The batches of the step that ends just now, on this device."""
    crops = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(crops, CropDataModule)
    suspects: list[Suspect] = []
    for batches_ago in reversed(range(num_batches)):
        batch, places = crops.trained_batch(batches_ago)
        fault = None
        if run_again:
            batch = trainer.precision_plugin.convert_input(batch)
            batch = pl_module.transfer_batch_to_device(batch, pl_module.device, 0)
            with trainer.precision_plugin.train_step_context():
                fault = find_fault(pl_module, batch)
        suspects.append((f"crop: {'; '.join(places)}", fault))
    return suspects


def _gather(trainer: L.Trainer, suspects: list[Suspect]) -> list[Suspect]:
    """Those of all devices, under the number of each where there are several."""
    if trainer.world_size == 1:
        return suspects
    everyone: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyone, suspects)
    return [(f"device {rank}, {crop}", fault) for rank, theirs in enumerate(everyone) for crop, fault in theirs]
