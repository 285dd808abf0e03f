import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from longtag.errors import UsageError
from longtag.folder import RunFolder, sweep_of, write_json

CONFIG = OmegaConf.create({"tokens": 8})
HYDRA: Any = OmegaConf.create({"overrides": {"task": ["tokens=8"]}})


def test_a_run_that_was_refused_leaves_no_folder(tmp_path):
    path = tmp_path / "mine" / "outputs" / "day" / "run"
    path.mkdir(parents=True)
    with pytest.raises(UsageError), RunFolder(path):
        raise UsageError("refused")
    assert not (tmp_path / "mine" / "outputs").exists()
    assert (tmp_path / "mine").is_dir()


def test_a_run_that_was_refused_leaves_other_runs_alone(tmp_path):
    path = tmp_path / "outputs" / "day" / "run"
    path.mkdir(parents=True)
    (tmp_path / "outputs" / "other").mkdir()
    with pytest.raises(UsageError), RunFolder(path):
        raise UsageError("refused")
    assert [folder.name for folder in (tmp_path / "outputs").iterdir()] == ["other"]


def test_a_folder_with_anything_in_it_is_kept(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    with RunFolder(path):
        pass
    assert (path / "notes.txt").read_text() == "mine"


def test_claiming_writes_what_is_run(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.claim(CONFIG, HYDRA)
        assert OmegaConf.load(folder.path / ".hydra" / "config.yaml") == CONFIG
        assert OmegaConf.load(folder.path / ".hydra" / "overrides.yaml") == ["tokens=8"]
    assert not (folder.path / ".lock").exists()


def test_two_runs_cannot_use_one_folder(tmp_path):
    with RunFolder(tmp_path / "run") as first:
        first.claim(CONFIG, HYDRA)
        with RunFolder(tmp_path / "run") as second, pytest.raises(UsageError, match="another run is using this folder"):
            second.claim(CONFIG, HYDRA)
        assert (tmp_path / "run" / ".lock").exists()
    with RunFolder(tmp_path / "run") as third:
        third.claim(CONFIG, HYDRA)


def test_a_folder_below_a_file_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"), RunFolder(tmp_path / "file" / "run") as folder:
        folder.claim(CONFIG, HYDRA)


@pytest.mark.parametrize("exists", [True, False])
def test_resume_auto_takes_the_last_checkpoint_if_there_is_one(tmp_path, exists):
    folder = RunFolder(tmp_path)
    if exists:
        folder.checkpoints.mkdir()
        folder.last_checkpoint.write_text("")
    assert folder.checkpoint_to_resume("auto") == (folder.last_checkpoint if exists else None)
    assert folder.checkpoint_to_resume("never") is None
    assert folder.checkpoint_to_resume("other/best.ckpt") == Path("other/best.ckpt")


def test_the_summary_is_replaced_whole(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_summary({"status": "failed"})
    folder.write_summary({"status": "completed"})
    assert json.loads(folder.summary.read_text()) == {"status": "completed"}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_run_in_the_folder_of_a_sweep_belongs_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sweep_of(Path("mine/0")) is None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/sweep.json").touch()
    assert sweep_of(Path("mine/0")) == "mine"


def test_what_cannot_be_written_leaves_the_old_file_alone(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{\n  "a": 1\n}\n']
