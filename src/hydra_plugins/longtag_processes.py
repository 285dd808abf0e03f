"""The Hydra launcher that runs each job of a sweep in a process of its own. What it does lies in `longtag.sweep`."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from longtag.sweep.record import KeepsRecord


class Processes(Launcher, KeepsRecord):
    """Runs the script of the sweep once for each job, as many at a time as there are GPUs.

    Args:
        jobs_at_once: jobs that run at the same time; None for one a GPU, or one where there is none.
    """

    def __init__(self, jobs_at_once: Any = None) -> None:
        self.jobs_at_once = jobs_at_once

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        # Hydra imports its plugins at every start of the script, and this brings torch.
        from longtag.sweep.launch import launch

        return launch(self.hydra_context, self.task_function, self.config, job_overrides, self.jobs_at_once)
