"""Options that belong together, beside those that vary by themselves."""

from collections.abc import Sequence
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf

from longtag.errors import UsageError
from longtag.sweep.plan import compose_job
from longtag.sweep.record import KeepsRecord
from longtag.sweep.variants import variants_to_run

NARROW, FAR = "pattern=window pattern.window=4", "pattern=dilated 'pattern.dilations=[1, 9]'"
PARSER = OverridesParser.create()


def sweeper(**options: Any) -> Any:
    """By its name, as Hydra does: Hydra loads its plugins anew when it starts."""
    target = {"_target_": "hydra_plugins.longtag_combinations.Combinations", "max_batch_size": None}
    return instantiate(target | {"variants": [NARROW, FAR]} | options)


def jobs(*arguments: str, **options: Any) -> list[list[str]]:
    return sweeper(**options).jobs(list(arguments), PARSER)


def test_each_variant_comes_with_every_combination_of_the_rest_and_changes_fastest():
    seeds = {"seed": "0,1"}
    narrow, far = ["pattern=window", "pattern.window=4"], ["pattern=dilated", "pattern.dilations=[1,9]"]
    assert jobs("tokens=64", params=seeds) == [
        ["seed=0", "tokens=64", *narrow],
        ["seed=0", "tokens=64", *far],
        ["seed=1", "tokens=64", *narrow],
        ["seed=1", "tokens=64", *far],
    ]


@pytest.mark.parametrize("given", ["pattern=dense", "pattern.window=8", "+pattern.window=8"])
def test_an_option_of_a_variant_on_the_command_line_replaces_the_variants_altogether(given):
    assert jobs(given, "seed=0,1") == [[given, "seed=0"], [given, "seed=1"]]


def test_other_options_of_the_same_group_leave_the_variants_as_they_are():
    assert [job[0] for job in jobs("pattern.layout=auto")] == ["pattern.layout=auto"] * 2


def test_variants_alone_are_a_sweep_and_an_empty_list_is_none():
    assert len(jobs()) == 2
    assert jobs("seed=0,1", variants=[]) == [["seed=0"], ["seed=1"]]


def test_variants_are_read_from_a_config():
    listed = OmegaConf.create([NARROW])
    assert variants_to_run(listed, PARSER, params=[], arguments=[]) == [["pattern=window", "pattern.window=4"]]


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("pattern=window", "variants=pattern=window: expected a list"),
        (None, "variants=None: expected a list"),
        ({"pattern": "window"}, "expected a list"),
        ([["seed=1"]], r"\['seed=1'\]: expected a text"),
        ([NARROW, " "], "a variant is empty"),
        (["pattern='dense"], "No closing quotation"),
        ([NARROW, FAR, "pattern.window=4  pattern=window"], "'pattern.window=4  pattern=window' is there twice"),
        (["seed=1,2"], "seed=1,2: several values; write a variant for each"),
        ([NARROW, "tokens=64"], "hydra.sweeper.params.tokens: hydra.sweeper.variants set it as well"),
    ],
)
def test_variants_that_cannot_be_used_are_refused_by_name(variants, message):
    with pytest.raises(UsageError, match=message):
        variants_to_run(variants, PARSER, params=["tokens"], arguments=[])


def test_a_variant_that_cannot_be_read_is_a_job_that_is_refused(sweep):
    context, config = sweep
    good, bad = jobs(variants=["seed=1", "seed=[1"])
    assert compose_job(context.config_loader, config, good).seed == 1
    with pytest.raises(UsageError, match="options are written name=value"):
        compose_job(context.config_loader, config, bad)


class Counting(KeepsRecord):
    """Launches nothing, and keeps the number of the first job of each batch and how many there are."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        self.batches.append((initial_job_idx, len(job_overrides)))


def test_batches_are_filled_with_variants_too(sweep, tmp_path):
    context, config = sweep
    made, launcher = sweeper(max_batch_size=3, params={"seed": "0,1"}), Counting()
    made.config, made.hydra_context, made.launcher = config, context, launcher
    made.sweep([])
    assert launcher.batches == [(0, 3), (3, 1)]
    assert (tmp_path / "sweep/multirun.yaml").is_file()
