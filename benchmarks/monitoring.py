"""What watching a run costs: all monitors and W&B against none of them, as a share of the time of a step.

    python -m benchmarks.monitoring --rounds 5 --steps 30 tokens=10000           on a CPU
    python -m benchmarks.monitoring --rounds 3 --steps 40 experiment=genome      on a GPU

Whole runs in one process, watched and unwatched in turn. Times of steps are read from metrics.jsonl, which both write:
from a line to the next, so that everything between them counts. The first steps of each run are left out.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import tempfile
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from longtag.announcement import describe_device
from longtag.folder import RunFolder
from longtag.run import run

CONF = Path(__file__).parents[1] / "conf"
WAYS = {
    "unwatched": ("callbacks=none", "logger=none"),
    "watched": ("callbacks=default", "logger=wandb", "logger.wandb.mode=offline"),
}
WARM_UP = 5
"""Steps at the start of each run that are not counted."""


def step_ms(way: Sequence[str], overrides: Sequence[str], steps: int) -> list[float]:
    """Milliseconds of each step of one run, without those that warm it up."""
    with tempfile.TemporaryDirectory() as scratch:
        fixed = (f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}", "crops.val_limit=1", "test=false")
        with initialize_config_dir(str(CONF), version_base="1.3"):
            where = f"hydra.runtime.output_dir={scratch}/run"
            config = compose("train", [*overrides, *fixed, *way, where], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        hydra_config = config.hydra
        with open_dict(config):
            del config["hydra"]
        with contextlib.redirect_stdout(io.StringIO()), RunFolder(Path(scratch) / "run") as folder:
            run(config, hydra_config, folder)
        lines = [json.loads(line) for line in (Path(scratch) / "run" / "metrics.jsonl").read_text().splitlines()]
    ends = [line["time"] for line in lines if "train/loss" in line]
    return [(end - start) * 1e3 for start, end in pairwise(ends)][WARM_UP:]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each way")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of a run")
    parser.add_argument("overrides", nargs="*", help="options of train.py, for example tokens=10000")
    options = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_SILENT", "true")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    title = " ".join(options.overrides) or "the default config"
    print(f"torch {torch.__version__}, {describe_device(device)}; {title}")
    times: dict[str, list[list[float]]] = {name: [] for name in WAYS}
    for number in range(options.rounds):
        for name in sorted(WAYS, reverse=bool(number % 2)):
            times[name].append(step_ms(WAYS[name], options.overrides, options.steps))
    medians = {name: statistics.median(chain.from_iterable(runs)) for name, runs in times.items()}
    for name, runs in times.items():
        each = ", ".join(f"{statistics.median(run):.2f}" for run in runs)
        print(f"{name:10}{medians[name]:10.2f} ms a step (median; of each run: {each})")
    print(f"monitoring costs {medians['watched'] / medians['unwatched'] - 1:+.2%} of a step")


if __name__ == "__main__":
    main()
