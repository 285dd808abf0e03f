"""Every shipped config composes, passes the check, lists every option of what it builds and explains each of them."""

import inspect
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import get_object

from longtag.assembly import assemble
from longtag.config import check
from longtag.errors import UsageError
from longtag.folder import RunFolder

from .conftest import CONF

ROOT = CONF.parent
GROUPS = sorted(path.parent.name + "=" + path.stem for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra")
WITH_TARGET = sorted(path for path in CONF.glob("*/*.yaml") if "\n_target_:" in path.read_text())

# What run.py gives to a constructor itself, or what the data fixes, so that no YAML lists it.
GIVEN = {
    "data": set(),
    "crops": {"source"},
    "model": {"inputs", "num_classes", "pattern", "implementation", "levers", "levers_of_blocks"},
    "pattern": {"num_tokens"},
    "loss": {"class_counts", "ignore_index"},
    "metrics": {"class_names", "ignore_index"},
    "optim": set(),
    "memory": set(),
}


@pytest.mark.parametrize("choice", GROUPS)
def test_every_shipped_config_composes_and_passes_the_check(composed, choice, tmp_path):
    overrides = [choice]
    if choice == "pattern=file":
        overrides.append("pattern.path=table.npy")
    if choice == "sweep=optuna":
        pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    if choice.startswith("experiment="):
        overrides.append("trainer.accelerator=cpu")
    config, hydra_config = composed(*overrides)
    check(config, hydra_config.runtime.choices)


@pytest.mark.parametrize("pattern", ["window", "bigbird", "random", "union", "dense"])
@pytest.mark.parametrize("experiment", ["question", "recall", "replichore"])
def test_experiments_that_compare_patterns_take_any_of_them(composed, experiment, pattern):
    config, hydra_config = composed(f"experiment={experiment}", f"pattern={pattern}", "trainer.accelerator=cpu")
    check(config, hydra_config.runtime.choices)


@pytest.mark.parametrize(
    "path", [path for path in WITH_TARGET if path.parent.name in GIVEN], ids=lambda path: path.stem
)
def test_a_config_lists_every_option_of_what_it_builds(path):
    node = yaml.safe_load(path.read_text())
    options = set(inspect.signature(get_object(node["_target_"])).parameters)
    listed = {name for name in node if not name.startswith("_") and name != "defaults"} | _nested(node)
    assert listed == options - GIVEN[path.parent.name]


def _nested(node: dict) -> set[str]:
    """Options that are other files of a group, such as `/pattern@within: window`."""
    entries = [entry for entry in node.get("defaults", []) if isinstance(entry, dict)]
    return {name.split("@")[1].split(".")[0] for entry in entries for name in entry if "@" in name}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_has_a_comment(path):
    if path.parent.name in ("experiment", "sweep", "debug", "hydra"):
        assert re.search(r"^# [^@]", path.read_text(), re.MULTILINE), "says nothing about what it is for"
        return
    inherits = "\ndefaults:" in path.read_text() and path.name != "train.yaml"
    for line in path.read_text().splitlines():
        option = re.match(r"\s*(\w+): (?!_)", line)
        if option and not option[1].startswith("_") and not inherits:
            assert " # " in line or (path.name == "train.yaml" and line.startswith("  - ")), line
    assert path.read_text().startswith("#")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layers=abc", "model.num_layers=abc: expected an integer"),
        ("model.num_layers=1.5", "model.num_layers=1.5: expected an integer"),
        ("model.num_layers='3'", "model.num_layers=3: expected an integer"),
        ("model.norm=middle", "model.norm=middle: expected one of post, pre"),
        ("model.dropout=null", "model.dropout=null: expected a number"),
        ("pattern.causal=maybe", "pattern.causal=maybe: expected true or false"),
        ("pattern.dilations=3", "pattern.dilations=3: expected a list, each item an integer"),
        ("pattern.dilations=[1,x]", r"pattern.dilations=\[1, 'x'\]: expected a list, each item an integer"),
        ("crops.val_limit=few", "crops.val_limit=few: expected an integer or null"),
        (
            "trainer.precision=17",
            "trainer.precision=17: expected one of 16, 16-mixed, 16-true, 32, .* or null",
        ),
        ("trainer.gradient_clip_val=x", "trainer.gradient_clip_val=x: expected a number or an integer or null"),
        ("callbacks.progress.plain_every_seconds=x", "callbacks.progress.plain_every_seconds=x: expected a number"),
        ("logger.wandb.mode=maybe", "logger.wandb.mode=maybe: expected one of auto, online, offline"),
        ("tokens=many", "tokens=many: expected an integer"),
        ("seed=null", "seed=null: expected an integer"),
        ("trainer.val_check_interval=0", "trainer.val_check_interval=0: expected a number of batches above 0"),
        (
            "trainer.accumulate_grad_batches=0",
            "trainer.accumulate_grad_batches=0: expected a number of batches above 0",
        ),
        (
            "trainer.gradient_clip_val=-1",
            "trainer.gradient_clip_val=-1: expected a norm above 0, or null",
        ),
        ("trainer.val_check_interval=0.5", "trainer.val_check_interval=0.5: .* give a whole number of batches"),
        (
            "trainer.accumulate_grad_batches=2 trainer.val_check_interval=3",
            "trainer.val_check_interval=3: .* give a multiple of trainer.accumulate_grad_batches=2",
        ),
        ("+trainer.fast_dev_run=true", "trainer.fast_dev_run=true: set by the run itself; use debug=fast"),
        ("+trainer.overfit_batches=1", "trainer.overfit_batches=1: set by the run itself; use debug=overfit"),
        ("+callbacks.mine=3", "callbacks.mine=3: expected a node with a _target_, or null to leave it out"),
        (
            "callbacks=averaging trainer.precision=bf16-true",
            "trainer.precision=bf16-true: a mean of weights in 16 bits stands still.*give trainer.precision=bf16-mixed",
        ),
        ("trainer.devices=0", "trainer.devices=0: expected how many, 1 or more, or a list of their numbers"),
        ("trainer.devices=two", "trainer.devices=two: expected how many, 1 or more, or a list of their numbers"),
        ("metrics.per_class=some", "metrics.per_class=some: expected auto or true or false"),
        ("folder=", "folder=: expected the path of a folder"),
        ("seed=-1", "seed=-1: expected a number from 0 to 4294967295"),
        ("tokens=3000000000", "tokens=3000000000: positions are numbers of 32 bits; give 2147483647 or fewer"),
        ("tokens=0", "tokens=0: expected the length of a crop in tokens, 1 or more"),
        ("trainer.max_steps=-1", "trainer.max_steps=-1: crops never run out; give the number of optimizer steps"),
        ("resume=nowhere.ckpt", "resume=nowhere.ckpt: no such checkpoint; expected auto, never, or the path"),
        ("monitor=train/loss", "monitor=train/loss: expected a key of the validation"),
        ("+model.depth=3", "model.depth: small has no such option; it has"),
        ("+model.num_layer=3", "model.num_layer: small has no such option; did you mean num_layers"),
        (
            "+trainer.max_epochs=3",
            "trainer.max_epochs=3: set by the run itself; crops never run out; give trainer.max_steps",
        ),
        ("model._target_=longtag.modle.X", "model._target_=longtag.modle.X: cannot be imported"),
        ("pattern=file", r"pattern.path: has no default; give pattern.path=\.\.\."),
        (
            "pattern=union pattern.patterns.window.window=wide",
            "pattern.patterns.window.window=wide: expected an integer",
        ),
        (
            "pattern=union +pattern.patterns.window.widow=3",
            "pattern.patterns.window.widow: window has no such option; did you mean window",
        ),
        ("pattern=documents pattern.within.causal=1", "pattern.within.causal=1: expected true or false"),
        (
            "pattern=documents pattern.lengths=long",
            "pattern.lengths=long: expected an integer or a list, each",
        ),
        ("pattern=window pattern.layout=dense", "expected one of auto, index_list, block_sparse"),
        (
            "pattern=per_head pattern.heads=[1,2]",
            r"pattern.heads=\[1, 2\]: they add up to 3, but the model has 2 heads",
        ),
        (
            "pattern=per_head model=base",
            r"pattern.heads=\[1, 1\]: they add up to 2, but the model has 12 heads",
        ),
        ("pattern=bigbird pattern.num_heads=3", "pattern.num_heads=3: the model has 2 heads; give pattern.num_heads=2"),
        ("memory.checkpoint=some", "memory.checkpoint=some: expected one of none, blocks, selective"),
        ("memory.tile_tokens=1.5", "memory.tile_tokens=1.5: expected an integer or null"),
        ("optim.in_backward=true", "optim.in_backward=true: .* clipping needs; give trainer.gradient_clip_val=null"),
        (
            "optim.in_backward=true trainer.gradient_clip_val=null trainer.accumulate_grad_batches=2",
            "optim.in_backward=true: .* the next batch .*; give trainer.accumulate_grad_batches=1",
        ),
        (
            "optim.in_backward=true trainer.gradient_clip_val=null trainer.devices=2",
            "optim.in_backward=true: .* averaged over devices; give trainer.devices=1",
        ),
        (
            "optim.in_backward=true trainer.gradient_clip_val=null trainer.precision=16-mixed",
            "optim.in_backward=true: .* loss scale .*; give trainer.precision=bf16-mixed",
        ),
        (
            "optim.update=stochastic",
            "optim.update=stochastic: .* with trainer.precision=null there are none; give trainer.precision=bf16-true",
        ),
        ("optim.states=4bit", "optim.states=4bit: expected one of float32, bfloat16, 8bit"),
        ("matmul_precision=low", "matmul_precision=low: expected one of highest, high, medium"),
        ("optim.betas=[0.9]", r"optim.betas=\[0.9\]: expected a list of 2: a number, a number"),
    ],
)
def test_a_value_that_does_not_fit_its_signature_is_named(composed, override, message):
    config, hydra_config = composed(*override.split(" "))
    with pytest.raises(UsageError, match=message):
        check(config, hydra_config.runtime.choices)


def test_other_arguments_of_the_trainer_can_be_added(tiny, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    config, hydra_config = tiny("+trainer.benchmark=true")
    check(config, hydra_config.runtime.choices)
    with RunFolder(Path(hydra_config.runtime.output_dir)) as folder:
        assemble(config, hydra_config, folder)
    assert torch.backends.cudnn.benchmark


def test_all_problems_are_listed_at_once(composed):
    config, hydra_config = composed("model.num_layers=abc", "optim.learning_rate=fast", "tokens=x")
    with pytest.raises(UsageError) as caught:
        check(config, hydra_config.runtime.choices)
    named = [line.split("=")[0] for line in str(caught.value).splitlines()]
    assert {"tokens", "model.num_layers", "optim.learning_rate"} <= set(named)


def test_an_option_that_others_repeat_is_named_once(composed):
    config, hydra_config = composed("tokens=x", "crops.seed=y")
    with pytest.raises(UsageError) as caught:
        check(config, hydra_config.runtime.choices)
    assert str(caught.value).splitlines() == ["tokens=x: expected an integer", "crops.seed=y: expected an integer"]


def test_a_gpu_experiment_on_a_machine_without_one_says_what_to_shorten(composed, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config, hydra_config = composed("experiment=question")
    with pytest.raises(UsageError, match=r"no CUDA device.*trainer.accelerator=cpu.*tokens=10000"):
        check(config, hydra_config.runtime.choices)


def train(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["pattern=window", "pattern.windw=3"],
            "error: pattern.windw: window has no such option; did you mean window?",
        ),
        (["patern=window"], "error: patern: train.yaml has no such option; did you mean pattern?"),
        (["pattern=windo"], "error: pattern=windo: no such pattern; did you mean window?"),
        (
            ["experiment=genome", "model.num_layer=3"],
            "error: model.num_layer: base has no such option; did you mean num_layers?",
        ),
        (["model.d_model=["], "options are written name=value"),
        (
            ["folder=null"],
            "error: hydra.run.dir: While dereferencing interpolation '${folder}': Incompatible value 'None'",
        ),
        (["seed=1", "-m", "tokens=range(5,1)"], "error: tokens=range(5,1): no value to sweep over"),
        (["-m", "seed=1,2", "folder="], "error: folder=: expected the path of a folder"),
        (["folder=/dev/null/run"], "error: /dev/null/run: Not a directory; give another path"),
    ],
)
def test_a_misspelt_option_ends_with_the_nearest_one_and_leaves_nothing_behind(tmp_path, arguments, message):
    done = train(*arguments, cwd=tmp_path)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argument", [["--help"], ["--cfg", "job"]], ids=["help", "cfg"])
def test_help_and_config_answer_in_under_two_seconds(tmp_path, argument):
    # Of processor time, since other tests may run beside this one.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = train(*argument, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "dilations" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_the_hugging_face_package_called_kernels_is_not_shadowed():
    assert not (ROOT / "kernels" / "__init__.py").exists()
