"""A run that ends for want of memory: what it says, what it leaves, and how the shell hears of it."""

import json

import pytest
import torch

from longtag.entry import FULL_ERROR, readable_errors
from longtag.errors import OutOfMemory
from longtag.tagger import Tagger

from ..conftest import CONF, run_in_folder

OF_CUDA = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.25 GiB is "
    "free. Including non-PyTorch memory, this process has 77.8 GiB memory in use. If reserved but unallocated memory "
    "is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


@pytest.fixture
def without_memory_in_step_four(monkeypatch):
    step = Tagger.training_step

    def fails_late(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            raise torch.OutOfMemoryError(OF_CUDA)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Tagger, "training_step", fails_late)


def room_of(monkeypatch, size: int) -> None:
    monkeypatch.setattr("longtag.memory.out_of_memory._room", lambda device: size)


LARGE = ("tokens=3000", "data.length=3000", "model.num_layers=6", "model.d_model=64", "callbacks=none", "test=false")


def test_it_says_what_was_asked_what_is_needed_and_what_would_fit(
    tiny, tmp_path, monkeypatch, without_memory_in_step_four
):
    # Between what recomputation needs and what it needs without: some twenty tensors of six blocks.
    room_of(monkeypatch, 24 * 2**20)
    with pytest.raises(OutOfMemory) as raised:
        run_in_folder(tiny(*LARGE))
    said = str(raised.value)
    assert said.startswith("out of memory: 2.00 GiB were asked for, 1.25 GiB of 79.10 GiB were free\n")
    assert "| optimizer states | 0.00" in said
    advice = [line for line in said.splitlines() if line.startswith("  ")]
    assert 1 <= len(advice) <= 3
    assert any(line.startswith("  memory.checkpoint=blocks ") for line in advice)
    times = [float(line.split(", ")[1].split()[0]) for line in advice if "times" in line]
    assert times == sorted(times)
    assert f"the last checkpoint is whole: {tmp_path}/run/checkpoints/last.ckpt" in said
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"].startswith("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB")
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


def test_where_no_lever_helps_a_shorter_sequence_is_named(tiny, monkeypatch, without_memory_in_step_four):
    # Six blocks of 1000 tokens fit where they are recomputed, and not otherwise.
    room_of(monkeypatch, 12 * 2**20)
    with pytest.raises(OutOfMemory, match=r"first:\n  memory.checkpoint=blocks .*memory.offload=true tokens=[12]000\n"):
        run_in_folder(tiny(*LARGE))


def test_the_shell_hears_of_it_without_a_traceback_unless_one_is_asked_for(monkeypatch, capsys):
    with pytest.raises(SystemExit) as left, readable_errors(CONF):
        raise OutOfMemory("out of memory: so much\nnot that much")
    assert left.value.code == 1
    assert capsys.readouterr().err == "out of memory: so much\nnot that much\n"
    monkeypatch.setenv(FULL_ERROR, "1")
    with pytest.raises(OutOfMemory), readable_errors(CONF):
        raise OutOfMemory("out of memory")


def test_an_estimate_that_fails_does_not_hide_the_reason(tiny, monkeypatch, without_memory_in_step_four):
    def broken(*args):
        raise RuntimeError("no estimate today")

    monkeypatch.setattr("longtag.memory.out_of_memory.build_subject", broken)
    with pytest.raises(OutOfMemory, match=r"asked for.*\n\n.*no estimate today"):
        run_in_folder(tiny("callbacks=none"))
