import errno
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from longtag.checkpoint_file import WholeCheckpoints, read, step_to_resume
from longtag.errors import UsageError


def test_a_checkpoint_replaces_the_one_before(tmp_path):
    for step in (1, 2):
        WholeCheckpoints().save_checkpoint({"global_step": step}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"global_step": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_partial(tmp_path, monkeypatch):
    WholeCheckpoints().save_checkpoint({"global_step": 1}, tmp_path / "last.ckpt")

    def half(self, checkpoint, path, storage_options=None):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", half)
    with pytest.raises(OSError, match="No space left"):
        WholeCheckpoints().save_checkpoint({"global_step": 2}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"global_step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("content", [None, b"", b"junk", "half", [1], {"global_step": 1}], ids=str)
def test_a_file_that_is_no_whole_checkpoint_is_named_with_a_way_out(tmp_path, content):
    path = tmp_path / "last.ckpt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "half":
        torch.save({"global_step": 1, "state_dict": {}}, path)
        path.write_bytes(path.read_bytes()[:300])
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=r"last.ckpt: missing, damaged, or no checkpoint of a run; give another one$"):
        read(path, "give another one")


@pytest.mark.parametrize(
    ("weights", "difference"),
    [
        ({"a": torch.zeros(3, 4)}, "a is 2 x 4 there and 3 x 4 here"),
        ({"a": torch.zeros(2, 4), "b": torch.zeros(1)}, "b is missing there and 1 here"),
        ({}, "a is 2 x 4 there and missing here"),
    ],
)
def test_a_checkpoint_of_another_model_is_told_by_its_first_other_weight(tmp_path, weights, difference):
    path = tmp_path / "last.ckpt"
    torch.save({"global_step": 7, "state_dict": {"a": torch.zeros(2, 4)}}, path)
    assert step_to_resume(path, {"a": torch.ones(2, 4)}) == 7
    with pytest.raises(UsageError, match=f"of another model, {difference}; .* resume=never"):
        step_to_resume(path, weights)
