"""Checkpoints on disk: the old file stays until the new one is whole, and only one that fits is gone on from."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import Tensor

from longtag.errors import UsageError


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the file and then takes its place, so that a full disk or a crash costs no checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        draft = path.with_name(path.name + ".part")
        try:
            super().save_checkpoint(checkpoint, draft, storage_options)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


def read(path: Path, way_out: str) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; tensors are read from the disk when they are used.

    Raises UsageError, which says what to do instead, for a file that is missing or no whole checkpoint of a run.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if checkpoint.keys() >= {"global_step", "state_dict"}:
            return checkpoint
    except (RuntimeError, UnpicklingError, EOFError, LookupError, AttributeError, ValueError, FileNotFoundError):
        pass
    raise UsageError(f"{path}: missing, damaged, or no checkpoint of a run; {way_out}")


def step_to_resume(path: Path, weights: Mapping[str, Tensor], *, averages: bool = False) -> int:
    """The optimizer step at which a checkpoint goes on.

    weights: of the module that is to go on, by name. averages: whether a mean of the weights is kept beside them.

    Raises UsageError as `read` does, and for the checkpoint of a model with other weights.
    """
    checkpoint = read(path, "give another one with resume=PATH, or resume=never to start afresh")
    if difference := _difference(checkpoint["state_dict"], weights):
        raise UsageError(
            f"{path}: of another model, {difference}; give the options that it was made with, folder=... with another "
            "folder, or resume=never to start afresh"
        )
    if "current_model_state" in checkpoint and not averages:
        raise UsageError(
            f"{path}: of a run that keeps a mean of its weights; give callbacks=averaging again, folder=... with "
            "another folder, or resume=never to start afresh"
        )
    return checkpoint["global_step"]


def _difference(saved: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """The first weight in which two modules differ, in words."""
    for name in [*weights, *saved]:
        there, here = (tuple(found[name].shape) if name in found else None for found in (saved, weights))
        if there != here:
            return f"{name} is {_shape(there)} there and {_shape(here)} here"
    return None


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, shape))
