"""Batches of crops for Lightning: an endless resumable stream for training, tiles for validation and test."""

import signal
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from longtag.data.crops import RandomCrops, TiledCrops
from longtag.data.samplers import ConsecutiveItems, TileBatches
from longtag.data.source import Crop, Source
from longtag.data.timed_loader import TimedLoader
from longtag.errors import UsageError

Batch = dict[str, Tensor]
"""`inputs` (batch, length) or (batch, length, width), `labels` (batch, length), and from a source that knows them
`distances` (batch, length)."""


class CropDataModule(lightning.LightningDataModule):
    """Crops of a source, in batches.

    Training has no end: give the Trainer `max_steps`, `val_check_interval` in batches, `check_val_every_n_epoch=None`.
    The samplers know the ranks by themselves: give it `use_distributed_sampler=False`. A run that goes on from a
    checkpoint, also one from the middle of an epoch, reads the crops that it would have read without the break.

    Args:
        source: where the tokens come from.
        length: tokens in a crop.
        batch_size: crops in a batch, on each rank.
        num_workers: processes that prepare batches; 0: none.
        pin_memory: hand batches over in page-locked memory; None: where there is a CUDA device.
        seed: picks the row of training crops.
        distinct: training crops that differ, repeated for ever; None: no limit.
        val_limit: tiles to validate on, spread evenly; None: all.
        test_limit: tiles to test on, spread evenly; None: all.
    """

    def __init__(
        self,
        *,
        source: Source,
        length: int,
        batch_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool | None = None,
        seed: int = 0,
        distinct: int | None = None,
        val_limit: int | None = None,
        test_limit: int | None = None,
    ) -> None:
        super().__init__()
        smallest = {"tokens": (length, 1), "batch_size": (batch_size, 1), "num_workers": (num_workers, 0)}
        smallest |= {
            "seed": (seed, 0),
            "distinct": (distinct, 1),
            "val_limit": (val_limit, 1),
            "test_limit": (test_limit, 1),
        }
        for name, (value, minimum) in smallest.items():
            if value is not None and value < minimum:
                raise UsageError(f"{name}={value}: must be {minimum} or more")
        self.source = source
        self.batch_size = batch_size
        self._train = RandomCrops(source, length=length, seed=seed, distinct=distinct)
        self._val = TiledCrops(source, "val", length=length, limit=val_limit)
        self._test = TiledCrops(source, "test", length=length, limit=test_limit)
        self._workers: dict[str, Any] = {
            "num_workers": num_workers,
            "persistent_workers": num_workers > 0,
            "worker_init_fn": _leave_ctrl_c_to_the_run,
            "pin_memory": torch.cuda.is_available() if pin_memory is None else pin_memory,
            # Its own, so that a validation more or less does not change the dropout of the steps that follow.
            "generator": torch.Generator().manual_seed(seed),
        }
        self._samples_before, self._batches_before = 0, 0

    def train_dataloader(self) -> DataLoader[Crop]:
        items = ConsecutiveItems(self._samples_seen, rank=self._rank, world_size=self._world_size)
        return TimedLoader(
            self._train, batch_size=self.batch_size, sampler=items, collate_fn=collate_crops, **self._workers
        )

    def val_dataloader(self) -> DataLoader[Crop]:
        return self._tiles_loader(self._val)

    def test_dataloader(self) -> DataLoader[Crop]:
        return self._tiles_loader(self._test)

    def trained_batch(self, batches_ago: int = 0) -> tuple[Batch, list[str]]:
        """A batch of this rank that has been through a training step, made again, and where each of its crops lies.

        batches_ago: 0 for the batch of the step that ends just now.
        """
        batches = self._batches_trained() - self._batches_before - 1 - batches_ago
        first = self._samples_before + batches * self.batch_size * self._world_size + self._rank
        items = [first + self._world_size * crop for crop in range(self.batch_size)]
        return collate_crops([self._train[item] for item in items]), [self._train.place(item) for item in items]

    def state_dict(self) -> dict[str, Any]:
        """How many training samples all ranks together have put through a training step."""
        return {"samples": self._samples_seen(), "batches": self._batches_trained()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._samples_before, self._batches_before = state_dict["samples"], state_dict["batches"]

    def _samples_seen(self) -> int:
        """Counted in samples, so that a run may go on with another batch size or another number of ranks."""
        batches = self._batches_trained() - self._batches_before
        return self._samples_before + batches * self.batch_size * self._world_size

    def _batches_trained(self) -> int:
        """Lightning's own count over the whole run, which its checkpoints carry; prefetched batches are not in it."""
        if not self.trainer:
            return 0
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()["processed"]

    def _tiles_loader(self, tiles: TiledCrops) -> DataLoader[Crop]:
        batches = TileBatches(tiles.sizes, self.batch_size, rank=self._rank, world_size=self._world_size)
        return DataLoader(tiles, batch_sampler=batches, collate_fn=collate_crops, **self._workers)

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _leave_ctrl_c_to_the_run(worker: int) -> None:
    """A terminal sends Ctrl-C to all processes, and the run needs its workers to finish the running step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def collate_crops(crops: Sequence[Crop]) -> Batch:
    """A batch from crops of one length; a single crop is not copied."""
    channels = zip(*crops, strict=True)
    stacked = (channel[0][None] if len(channel) == 1 else torch.stack(channel) for channel in channels)
    return dict(zip(("inputs", "labels", "distances"), stacked, strict=False))
