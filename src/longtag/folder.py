"""The folder of a run: claimed once the config is known to be good, never left half made, resumed when given again."""

import fcntl
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from longtag.errors import UsageError

NO_PATH = "folder=: expected the path of a folder, for example folder=outputs/mine"


class RunFolder:
    """One folder for each run: ``.hydra/``, ``run_id``, ``metrics.jsonl``, ``summary.json``, ``checkpoints/``.

    Used as a context: leaving it removes the folder again if nothing was put into it, so that a run that was refused
    leaves no trace.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.metrics = path / "metrics.jsonl"
        self.summary = path / "summary.json"
        self.run_id = self._known_run_id() or secrets.token_hex(4)
        """Names the run where it is watched; a folder that is resumed keeps its own."""
        self._lock: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock is not None:
            (self.path / ".lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None
        remove_empty(self.checkpoints, self.path)

    def claim(self, config: DictConfig, hydra_config: HydraConf) -> None:
        """Take the folder for this process and write what it is going to run to ``.hydra/``.

        Raises:
            UsageError: another process runs in the folder.
            OSError: the folder cannot be written.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.path)
        if self._lock is None:
            raise UsageError(f"folder={self.path}: another run is using this folder; give another one")
        (self.path / "run_id").write_text(self.run_id)
        composed = self.path / ".hydra"
        composed.mkdir(exist_ok=True)
        OmegaConf.save(config, composed / "config.yaml")
        OmegaConf.save(OmegaConf.create({"hydra": hydra_config}), composed / "hydra.yaml")
        OmegaConf.save(OmegaConf.create(list(hydra_config.overrides.task)), composed / "overrides.yaml")

    def checkpoint_to_resume(self, resume: str) -> Path | None:
        """The checkpoint to go on from: ``auto`` looks for the folder's own last one, ``never`` for none."""
        if resume == "never":
            return None
        if resume == "auto":
            return self.last_checkpoint if self.last_checkpoint.is_file() else None
        return Path(resume)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json in one step, so that a reader never sees half of it."""
        write_json(self.summary, summary)

    def _known_run_id(self) -> str | None:
        path = self.path / "run_id"
        return path.read_text().strip() if path.is_file() else None


def sweep_of(run: Path) -> str | None:
    """The name of the sweep that a run's folder lies in, which is that of the sweep's folder; None outside of one."""
    above = run.resolve().parent
    return above.name if (above / "sweep.json").is_file() else None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file beside its place and move it there, so that a reader never sees half of it."""
    draft = path.with_suffix(".json.part")
    try:
        draft.write_text(json.dumps(content, indent=2) + "\n")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def take_lock(folder: Path) -> IO[str] | None:
    """The lock of a folder as an open file, which holds it until it is closed; None if another process has it."""
    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def remove_empty(*folders: Path) -> None:
    """Remove what was made for something that did not happen: empty folders, and those above up to ``outputs``.

    The folder that the command was started in stays.
    """
    names = [folder.name for folder in folders[-1].parents]
    above = folders[-1].parents[: names.index("outputs") + 1] if "outputs" in names else ()
    for folder in (*folders, *above):
        if folder.is_dir() and not folder.samefile(Path.cwd()) and not any(os.scandir(folder)):
            folder.rmdir()
