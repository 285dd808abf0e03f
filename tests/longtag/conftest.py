"""Configs composed as train.py composes them, small enough to run in a test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from longtag.folder import RunFolder
from longtag.run import run

CONF = Path(__file__).parents[2] / "conf"

TINY = (
    "data=synthetic",
    "data.num_classes=5",
    "tokens=64",
    "model.d_model=16",
    "model.d_ff=32",
    "pattern=window",
    "logger=none",
    "report=false",
    "trainer.accelerator=cpu",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
)

Compose = Callable[..., tuple[DictConfig, Any]]


def run_in_folder(configs: tuple[DictConfig, Any]) -> float | None:
    """What train.py does with a config that was composed."""
    config, hydra_config = configs
    with RunFolder(Path(hydra_config.runtime.output_dir)) as folder:
        return run(config, hydra_config, folder)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Compose]:
    """A function from overrides to the config and Hydra's own node, the run's folder in ``tmp_path / "run"``."""

    def compose_with(*overrides: str) -> tuple[DictConfig, Any]:
        folder = [] if any("output_dir" in item for item in overrides) else [f"hydra.runtime.output_dir={tmp_path}/run"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", [*overrides, *folder], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        hydra_config = config.hydra
        with open_dict(config):
            del config["hydra"]
        return config, hydra_config

    GlobalHydra.instance().clear()
    yield compose_with
    HydraConfig.instance().cfg = None


@pytest.fixture
def tiny(composed: Compose) -> Compose:
    """The same over a run of four steps on 64 random vectors."""
    return lambda *overrides: composed(*TINY, *overrides)
