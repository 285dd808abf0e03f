"""The Hydra sweeper that runs every combination of the values given, whatever becomes of single ones."""

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from longtag.errors import UsageError
from longtag.sweep.record import KeepsRecord
from longtag.sweep.variants import variants_to_run


class Combinations(BasicSweeper):
    """Hydra's own sweeper, but a job that cannot be composed or that fails does not stop the others.

    Hydra's composes every job first, gives up at the first that it cannot, and raises the first error of a job before
    anybody is told that the sweep has ended. Here both are listed.

    Args:
        max_batch_size: jobs handed to the launcher together; None for all.
        params: values for each option, independent of each other.
        variants: options that belong together; see `longtag.sweep.variants`.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None = None, variants: Any = ()) -> None:
        super().__init__(max_batch_size, params)
        self.variants = variants

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        jobs = self.jobs(arguments, parser)
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        first = 0
        for batch in self.split_overrides_to_chunks(jobs, self.max_batch_size):
            if isinstance(self.launcher, KeepsRecord):
                self.launcher.launch(batch, initial_job_idx=first)
            else:
                # Hydra imports its plugins at every start of the script, and this brings pydantic and rich.
                from longtag.sweep.other_launcher import launch_recorded

                launch_recorded(self.launcher, self.hydra_context.config_loader, self.config, batch)
            first += len(batch)

    def jobs(self, arguments: list[str], parser: OverridesParser) -> list[list[str]]:
        """The overrides of each job: every combination of values, and for each of these every variant.

        Raises UsageError for variants that cannot be used, and for an option without a value.
        """
        params = parser.parse_overrides([f"{name}={values}" for name, values in self.params.items()])
        given = parser.parse_overrides(arguments)
        for override in (*params, *given):
            if override.is_sweep_override() and not any(True for _ in override.sweep_iterator()):
                raise UsageError(f"{override.input_line}: no value to sweep over; give one or more, such as 1,2,3")
        variants = variants_to_run(self.variants, parser, params=self.params, arguments=given)
        (combinations,) = self.split_arguments([*params, *given], None)
        return [[*combination, *variant] for combination in combinations for variant in variants or [[]]]
