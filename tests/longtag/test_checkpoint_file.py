import errno
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from longtag.checkpoint_file import WholeCheckpoints


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
