"""The Hydra sweeper that runs every combination of the values given, whatever becomes of single ones."""

from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from longtag.errors import UsageError
from longtag.sweep.other_launcher import KeepsRecord, launch_recorded


class Combinations(BasicSweeper):
    """Hydra's own sweeper, but a job that cannot be composed or that fails does not stop the others.

    Hydra's composes every job first, gives up at the first that it cannot, and raises the first error of a job before
    anybody is told that the sweep has ended. Here both are listed.
    """

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        params = [f"{name}={values}" for name, values in self.params.items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*params, *arguments])
        for override in overrides:
            if override.is_sweep_override() and not any(True for _ in override.sweep_iterator()):
                raise UsageError(f"{override.input_line}: no value to sweep over; give one or more, such as 1,2,3")
        batches = self.split_arguments(overrides, self.max_batch_size)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        first = 0
        for batch in batches:
            if isinstance(self.launcher, KeepsRecord):
                self.launcher.launch(batch, initial_job_idx=first)
            else:
                launch_recorded(self.launcher, folder, batch, first)
            first += len(batch)
