"""A sweep whose jobs are composed and checked as real ones, and run by a stand-in that starts at once."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from longtag.sweep.launch import launch

from ..conftest import CONF, TINY
from . import stand_in

Launch = Callable[..., list[JobReturn]]


def written(folder: Path) -> list[dict[str, Any]]:
    """The jobs in a sweep's sweep.json."""
    return json.loads((folder / "sweep.json").read_text())["jobs"]


def statuses(folder: Path) -> list[str]:
    return [job["status"] for job in written(folder)]


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[tuple[HydraContext, DictConfig]]:
    """The context and the config of a multirun in ``tmp_path / "sweep"``."""
    from hydra._internal.callbacks import Callbacks

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        overrides = [f"folder={tmp_path}/sweep", "hydra.mode=MULTIRUN"]
        config = hydra.compose_config("train", overrides, run_mode=RunMode.MULTIRUN)
        yield HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks()), config
    HydraConfig.instance().cfg = None


@pytest.fixture
def launched(sweep: tuple[HydraContext, DictConfig]) -> Launch:
    """A function that runs a stand-in job for each list of overrides given."""
    context, config = sweep

    def launch_jobs(*jobs: Sequence[str], jobs_at_once: int | None = None) -> list[JobReturn]:
        return launch(context, stand_in.main, config, [[*TINY, *job] for job in jobs], jobs_at_once)

    return launch_jobs


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders for which a report was asked."""
    folders: list[Path] = []

    def report_sweep(folder: Path) -> list[str]:
        folders.append(folder)
        return [f"report: {folder / 'report.html'}"]

    module = ModuleType("longtag.report.end_of_sweep")
    module.report_sweep = report_sweep  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return folders
