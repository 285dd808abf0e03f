"""The sweeps that lie ready, and the search that W&B steers."""

import os
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from hydra.utils import instantiate
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from longtag.sweep.plan import compose_job

from ..conftest import CONF


def jobs_of(*arguments: str) -> list[list[str]]:
    """The overrides of each job that a command line asks for."""
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config("train", list(arguments), run_mode=RunMode.MULTIRUN)
    assert config.hydra.mode is RunMode.MULTIRUN
    return instantiate(config.hydra.sweeper).jobs(list(arguments), OverridesParser.create())


@pytest.mark.parametrize(
    ("arguments", "num_jobs"),
    [
        ("sweep=patterns", 24),
        ("sweep=patterns debug=fast", 12),
        ("sweep=patterns pattern=window,dense seed=3", 4),
        ("sweep=reach debug=fast", 12),
        ("sweep=reach experiment=recall trainer.accelerator=cpu", 6),
        ("sweep=reach pattern=hubs,dense trainer.accelerator=cpu", 4),
        ("sweep=lengths", 10),
        ("sweep=memory", 6),
    ],
)
def test_a_sweep_that_lies_ready_has_so_many_jobs_and_they_can_be_run(sweep, arguments, num_jobs):
    context, config = sweep
    jobs = jobs_of(*arguments.split())
    assert len(jobs) == len(set(map(tuple, jobs))) == num_jobs
    for job in (jobs[0], jobs[-1]):
        compose_job(context.config_loader, config, job)


def test_the_sweep_of_reach_trains_its_patterns_as_the_experiments_say_but_deeper(sweep):
    context, config = sweep
    first, *_, last = (
        compose_job(context.config_loader, config, job) for job in jobs_of("sweep=reach", "trainer.accelerator=cpu")
    )
    assert (first.data.track, last.data.copies) == ("replichore", 128)
    assert (first.trainer.max_steps, last.trainer.max_steps) == (500, 600)
    assert (first.pattern.window, last.pattern.keys_per_query) == (64, 16)
    for job in (first, last):
        assert (job.tokens, job.crops.batch_size, job.monitor) == (100000, 8, "val/accuracy")
        assert (job.model.num_layers, job.model.norm) == (4, "pre")


@pytest.mark.parametrize("launcher", ["parallel", "slurm"])
def test_a_launcher_of_a_plugin_is_configured_with_options_that_it_has(sweep, launcher):
    plugin = {"parallel": "hydra_joblib_launcher", "slurm": "hydra_submitit_launcher"}[launcher]
    pytest.importorskip(f"hydra_plugins.{plugin}")
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    config = hydra.compose_config("train", [f"hydra/launcher={launcher}"], run_mode=RunMode.MULTIRUN)
    assert plugin in config.hydra.launcher._target_


def one_of(parameter: dict[str, Any]) -> Any:
    """A value that W&B could draw."""
    return parameter["values"][-1] if "values" in parameter else parameter.get("value", parameter.get("min"))


def test_a_wandb_agent_builds_a_command_line_that_train_py_accepts():
    search = yaml.safe_load((CONF / "wandb_sweep.yaml").read_text())
    drawn = {name: {"value": one_of(parameter)} for name, parameter in search["parameters"].items()}
    words = {
        "${env}": [],
        "${interpreter}": [sys.executable],
        "${program}": [str(CONF.parent / search["program"])],
        "${args_no_hyphens}": create_sweep_command_args({"args": drawn})["args_no_hyphens"],
    }
    command = [word for part in create_sweep_command(search["command"]) for word in words.get(part, [part])]
    done = subprocess.run(
        [*command, "--cfg", "job", "--resolve"],
        env=os.environ | {"WANDB_SWEEP_ID": "search", "WANDB_RUN_ID": "1a2b3c4d"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["folder"] == "outputs/wandb/search/1a2b3c4d"
    assert config["model"]["num_layers"] == 4
    assert config["pattern"]["_target_"] == "sparse_attention.patterns.union"
    assert config["optim"]["betas"] == [0.9, 0.95]
    assert config["optim"]["learning_rate"] == 0.0003
