"""What each job of a sweep will run: its config, composed and checked before anything starts, and its command line."""

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from longtag.config import check
from longtag.entry import explain
from longtag.errors import UsageError
from longtag.sweep.record import without_folder

SET_BY_THE_SWEEP = ("hydra.mode=", "hydra.sweep.", "hydra.run.dir=")


def compose_job(loader: ConfigLoader, sweep: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The config of one job, known to be good.

    Args:
        loader: of the sweep.
        sweep: the composed config of the sweep, with Hydra's node.
        overrides: those of the job.

    Raises:
        UsageError: it cannot be composed, or does not pass the check.
    """
    try:
        config = loader.load_sweep_config(sweep, list(overrides))
    except HydraException as error:
        raise UsageError(explain(error, main_folder(sweep), list(overrides))) from error
    HydraConfig.instance().set_config(config)
    choices = config.hydra.runtime.choices
    try:
        with open_dict(config):
            del config["hydra"]
        check(config, choices)
    finally:
        HydraConfig.instance().set_config(sweep)
    return config


@dataclass(frozen=True)
class CommandLine:
    """How the script of a sweep is called for one of its jobs.

    script: the script that runs the sweep, and each job.
    flags: Hydra's own flags, which say where the config lies.
    hydra_overrides: the overrides of Hydra's node that the sweep was given.
    """

    script: Path
    flags: Sequence[str]
    hydra_overrides: Sequence[str]

    @classmethod
    def of(cls, script: Path, sweep: DictConfig) -> "CommandLine":
        """The command line of a sweep, as it was given to this process."""
        parser = ArgumentParser(add_help=False)
        for short, long in (("-cp", "--config-path"), ("-cn", "--config-name"), ("-cd", "--config-dir")):
            parser.add_argument(short, long, dest=long)
        given, _ = parser.parse_known_args(sys.argv[1:])
        flags = [word for flag, value in vars(given).items() if value is not None for word in (flag, value)]
        kept = [item for item in sweep.hydra.overrides.hydra if not item.startswith(SET_BY_THE_SWEEP)]
        return cls(script, flags, kept)

    def of_job(self, overrides: Iterable[str], folder: Path) -> list[str]:
        """The command that runs a job in a folder, or goes on there."""
        place = str(folder)
        # Without a slash it could be read as a number.
        if not re.fullmatch(r"[\w.-]*/[\w./-]+", place):
            place = QuotedString(place, Quote.single).with_quotes()
        own = [*without_folder(overrides), *self.hydra_overrides, f"folder={place}", "hydra.mode=RUN"]
        return [sys.executable, str(self.script), *self.flags, *own]


def main_folder(config: DictConfig) -> Path:
    """Where the config of the script lies."""
    return Path(next(source.path for source in config.hydra.runtime.config_sources if source.provider == "main"))
