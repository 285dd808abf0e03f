"""The checkpoint that is the best by `monitor`, if the validation has such a figure."""

import re
from collections.abc import Collection

from lightning.pytorch.callbacks import ModelCheckpoint

from longtag.data import Source
from longtag.errors import UsageError
from longtag.folder import RunFolder
from longtag.metrics.distance_accuracy import POWERS

BY_DISTANCE = re.compile(r"accuracy_at_distance/(\d+)")


def best_checkpoint(
    monitor: str, figures: Collection[str], source: Source, tokens: int, folder: RunFolder
) -> ModelCheckpoint:
    """The callback that keeps the best one of a run.

    monitor: key of the figure that says which one is the best. figures: those that every validation has, without
    `val/`. tokens: of a crop.

    Raises UsageError, with the figures that there are, for any other.
    """
    name = monitor.removeprefix("val/")
    found = BY_DISTANCE.fullmatch(name)
    if found:
        bounds = [4**power for power in range(POWERS) if 4 ** (power - 1) < tokens]
        if not _knows_distances(source, tokens):
            raise UsageError(f"monitor={monitor}: the data does not say at what distance; give {_listed(figures)}")
        if int(found[1]) not in bounds:
            raise UsageError(f"monitor={monitor}: distances go up to powers of four, {', '.join(map(str, bounds))}")
    elif name not in figures:
        raise UsageError(f"monitor={monitor}: the validation has no such figure; it has {_listed(figures)}")
    return ModelCheckpoint(
        dirpath=folder.checkpoints,
        filename="best",
        monitor=monitor,
        mode="min" if monitor.endswith("loss") else "max",
        enable_version_counter=False,
    )


def _listed(figures: Collection[str]) -> str:
    return ", ".join(f"val/{name}" for name in figures)


def _knows_distances(source: Source, tokens: int) -> bool:
    block = source.blocks("val")[0]
    return len(source.read(block, 0, min(block.size, tokens))) > 2
