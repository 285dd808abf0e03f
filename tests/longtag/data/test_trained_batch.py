"""A batch that was trained on can be made again and its crops named, also behind a resume."""

import re

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from longtag.callbacks.resumption import Resumption

from ..conftest import run_in_folder

OPTIONS = (
    "tokens=500", "model.d_model=16", "pattern=window", "logger=none", "trainer.accelerator=cpu", "callbacks=none",
    "crops.batch_size=2", "crops.val_limit=1", "trainer.accumulate_grad_batches=2", "test=false",
    "trainer.val_check_interval=2",
)  # fmt: skip


@pytest.fixture
def made_again(monkeypatch) -> list[tuple[bool, list[str]]]:
    """Whether each batch of a run, and the one before it, was made again the same, and where its crops lie."""
    seen: list[tuple[bool, list[str]]] = []
    before: list[dict[str, torch.Tensor]] = []

    def compare(self: Callback, trainer, pl_module, outputs, batch, batch_idx) -> None:
        again, places = trainer.datamodule.trained_batch()
        same = all(torch.equal(again[name], batch[name]) for name in batch)
        if before:
            earlier, _ = trainer.datamodule.trained_batch(batches_ago=1)
            same = same and torch.equal(earlier["inputs"], before[-1]["inputs"])
        before.append(batch)
        seen.append((same, places))

    monkeypatch.setattr(Resumption, "on_train_batch_end", compare)
    return seen


def test_every_batch_can_be_made_again_with_the_places_of_its_crops(composed, made_again):
    run_in_folder(composed(*OPTIONS, "trainer.max_steps=2"))
    run_in_folder(composed(*OPTIONS, "trainer.max_steps=4"))
    assert len(made_again) == 8
    assert all(same for same, _ in made_again)
    places = [place for _, places in made_again for place in places]
    assert len(set(places)) == 16
    for place in places:
        first, last = re.fullmatch(r"tokens ([\d,]+) to ([\d,]+) of record 0", place).groups()  # pyright: ignore[reportOptionalMemberAccess]
        assert int(last.replace(",", "")) - int(first.replace(",", "")) == 499
