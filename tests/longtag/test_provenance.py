import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from longtag import provenance as module
from longtag.provenance import provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with one commit, in which the code seems to lie."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "code.py"))
    module._git.cache_clear()
    (tmp_path / "code.py").write_text("1\n")
    for command in ("init -q", "add code.py", "-c user.name=a -c user.email=a@b commit -q -m first"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    yield tmp_path
    module._git.cache_clear()


def test_the_commit_is_named_and_whether_files_changed_since(repository):
    head = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    assert (provenance()["commit"], provenance()["changed"]) == (head.stdout.strip(), False)
    module._git.cache_clear()
    (repository / "code.py").write_text("2\n")
    assert provenance()["changed"] is True


def test_code_outside_of_a_repository_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "code.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    module._git.cache_clear()
    assert (provenance()["commit"], provenance()["changed"]) == (None, None)
    module._git.cache_clear()


def test_command_line_and_versions_are_kept(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "pattern.path=my table.npy"])
    facts = provenance()
    assert facts["command"] == "python train.py 'pattern.path=my table.npy'"
    assert facts["torch"] == version("torch")
