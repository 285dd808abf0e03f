from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from longtag.data import IGNORED, Block, CropDataModule, SyntheticSource
from longtag.errors import UsageError
from tests.longtag.data.conftest import RulerSource

pytestmark = pytest.mark.filterwarnings("ignore")


class Recorder(lightning.LightningModule):
    """A model of one weight that notes the first token of every crop it trains on, and fails once told to."""

    def __init__(self, fails_after: int | None = None) -> None:
        super().__init__()
        self.fails_after = fails_after
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[int] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        if batch_idx == self.fails_after:
            raise RuntimeError("told to fail")
        self.seen += batch["inputs"][:, 0].tolist()
        return self.weight * batch["labels"].float().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self.validated += batch["inputs"][:, 0].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(
    folder: Path,
    ruler: RulerSource,
    steps: int,
    resume: Path | None = None,
    recorder: Recorder | None = None,
    **options: Any,
) -> Recorder:
    crops = {key: options.pop(key) for key in ("batch_size", "num_workers") if key in options}
    defaults = {"val_check_interval": 3, "check_val_every_n_epoch": None, "accumulate_grad_batches": 2}
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[
            ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1),
            OnExceptionCheckpoint(folder),
        ],
        **{**defaults, **options},
    )
    recorder = recorder or Recorder()
    data = CropDataModule(source=ruler, length=20, seed=5, **{"batch_size": 2, **crops})
    trainer.fit(recorder, datamodule=data, ckpt_path=resume, weights_only=True)
    return recorder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_reads_the_crops_that_an_unbroken_one_would_have_read(
    tmp_path: Path, ruler: RulerSource, num_workers: int
):
    straight = train(tmp_path / "a", ruler, 6, num_workers=num_workers)
    train(tmp_path / "b", ruler, 3, num_workers=num_workers)
    resumed = train(tmp_path / "c", ruler, 6, resume=tmp_path / "b" / "step=3.ckpt", num_workers=num_workers)
    assert len(straight.seen) == 6 * 2 * 2
    assert len(set(straight.seen)) > 12
    assert resumed.seen == straight.seen[12:]
    assert resumed.weight.item() == straight.weight.item()


def test_a_run_resumed_twice_still_reads_the_same_crops(tmp_path: Path, ruler: RulerSource):
    straight = train(tmp_path / "a", ruler, 6)
    seen = train(tmp_path / "b", ruler, 1).seen
    seen += train(tmp_path / "b", ruler, 4, resume=tmp_path / "b" / "step=1.ckpt").seen
    seen += train(tmp_path / "b", ruler, 6, resume=tmp_path / "b" / "step=4.ckpt").seen
    assert seen == straight.seen


def test_a_batch_that_broke_off_is_read_again(tmp_path: Path, ruler: RulerSource):
    straight = train(tmp_path / "a", ruler, 6)
    broken = Recorder(fails_after=4)
    with pytest.raises(RuntimeError, match="told to fail"):
        train(tmp_path / "b", ruler, 6, recorder=broken)
    resumed = train(tmp_path / "b", ruler, 6, resume=tmp_path / "b" / "on_exception.ckpt")
    assert broken.seen + resumed.seen == straight.seen


def test_a_run_goes_on_at_the_next_sample_when_the_batch_size_changes(tmp_path: Path, ruler: RulerSource):
    straight = train(tmp_path / "a", ruler, 6)
    train(tmp_path / "b", ruler, 2)
    resumed = train(tmp_path / "b", ruler, 4, resume=tmp_path / "b" / "step=2.ckpt", batch_size=4)
    assert resumed.seen == straight.seen[8:24]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_that_is_cut_short_does_not_begin_the_stream_again(
    tmp_path: Path, ruler: RulerSource, num_workers: int
):
    straight = train(tmp_path / "a", ruler, 6)
    epochs: dict[str, Any] = {"limit_train_batches": 4, "val_check_interval": 4, "check_val_every_n_epoch": 1}
    in_epochs = train(tmp_path / "b", ruler, 6, num_workers=num_workers, **epochs)
    assert in_epochs.seen == straight.seen


def test_validation_reads_every_tile(tmp_path: Path, ruler: RulerSource):
    recorder = train(tmp_path, ruler, 2, val_check_interval=4)
    assert sorted(recorder.validated) == [100, 105, 1200]


def test_batches_are_inputs_and_labels_with_a_batch_dimension(ruler: RulerSource):
    data = CropDataModule(source=ruler, length=20, batch_size=3)
    batch = next(iter(data.train_dataloader()))
    assert set(batch) == {"inputs", "labels"}
    assert batch["inputs"].shape == batch["labels"].shape == (3, 20)
    vectors = CropDataModule(source=SyntheticSource(length=20, width=6), length=20, batch_size=2)
    assert next(iter(vectors.train_dataloader()))["inputs"].shape == (2, 20, 6)


def test_a_single_crop_is_handed_on_without_a_copy():
    source = SyntheticSource(length=20, width=6)
    (batch,) = islice(CropDataModule(source=source, length=20, pin_memory=False).train_dataloader(), 1)
    inputs, _ = source.read(source.blocks("train")[0], 0, 20)
    assert batch["inputs"].shape == (1, 20, 6)
    assert batch["inputs"].data_ptr() == inputs.data_ptr()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_tiles_of_different_length_are_batched_without_loss(ruler: RulerSource, batch_size: int):
    loader = CropDataModule(source=ruler, length=10, batch_size=batch_size).val_dataloader()
    scored = [batch["inputs"][batch["labels"] != IGNORED].tolist() for batch in loader]
    assert sorted(token for batch in scored for token in batch) == [*range(100, 125), *range(1200, 1207)]


def test_limits_apply_to_validation_and_test_apart(ruler: RulerSource):
    data = CropDataModule(source=ruler, length=5, val_limit=2, test_limit=3)
    assert len(data.val_dataloader()) == 2
    assert len(data.test_dataloader()) == 3


def test_a_crop_longer_than_every_train_block_is_refused_at_once(ruler: RulerSource):
    with pytest.raises(UsageError, match=r"tokens=71: .* the longest has 70"):
        CropDataModule(source=ruler, length=71)


def test_a_split_without_a_block_gives_no_batches():
    source = RulerSource(train=(Block(0, 0, 9),), val=(), test=())
    assert list(CropDataModule(source=source, length=5).val_dataloader()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "tokens=0: must be 1 or more"),
        ({"batch_size": 0}, "batch_size=0: must be 1 or more"),
        ({"num_workers": -1}, "num_workers=-1: must be 0 or more"),
        ({"seed": -1}, "seed=-1: must be 0 or more"),
        ({"val_limit": 0}, "val_limit=0: must be 1 or more"),
        ({"test_limit": 0}, "test_limit=0: must be 1 or more"),
    ],
)
def test_numbers_out_of_range_are_refused(ruler: RulerSource, options: dict[str, int], message: str):
    with pytest.raises(UsageError, match=message):
        CropDataModule(**{"source": ruler, "length": 10, **options})
