"""From overrides, as train.py takes them, to what is estimated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from longtag.assembly import build_levers, build_subject
from longtag.config import check
from longtag.memory import Levers
from longtag.memory.estimate.subject import Subject

EACH_ALONE = {
    "no lever": Levers(),
    "tile_heads=4": Levers(tile_heads=4),
    "tile_tokens=8192": Levers(tile_tokens=8192),
    "checkpoint=selective": Levers(checkpoint="selective"),
    "checkpoint=blocks": Levers(checkpoint="blocks"),
    "blocks, offload": Levers(checkpoint="blocks", offload=True),
    "blocks, tile_tokens=8192": Levers(checkpoint="blocks", tile_tokens=8192),
}
"""Levers one by one, the last two on top of the one that they serve."""


def compose_subject(conf: Path, overrides: list[str]) -> tuple[Subject, dict[str, Levers]]:
    """The subject of a config, and levers to compare: each alone, the presets of conf/memory, and the config's own.

    Raises UsageError and HydraException as train.py does.
    """
    config = compose_config(conf, overrides)
    device_type = "cpu" if config.trainer.accelerator == "cpu" else "cuda"
    subject = build_subject(config, device_type)
    rest = [item for item in overrides if not item.lstrip("+~").startswith("memory")]
    levers = {name: replace(known, residual=subject.levers.residual) for name, known in EACH_ALONE.items()}
    levers["residual=float32"] = Levers(residual="float32")
    for preset in sorted(file.stem for file in (conf / "memory").glob("*.yaml") if file.stem != "auto"):
        found = build_levers(compose_config(conf, [*rest, f"memory={preset}"]))
        if found in levers.values():
            levers = {f"{preset}: {name}" if known == found else name: known for name, known in levers.items()}
        else:
            levers[preset] = found
    if subject.levers.checkpoint != "auto" and subject.levers not in levers.values():
        levers["this config"] = subject.levers
    return subject, levers


def compose_config(conf: Path, overrides: Sequence[str]) -> DictConfig:
    """The config of train.py, checked, without Hydra's own node."""
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("train", list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    choices = config.hydra.runtime.choices
    with open_dict(config):
        del config["hydra"]
    check(config, choices, elsewhere=True)
    return config
