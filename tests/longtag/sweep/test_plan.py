from pathlib import Path

import pytest

from longtag.errors import UsageError
from longtag.sweep.plan import CommandLine, compose_job

TRAIN = Path("/there/train.py")


def test_a_job_runs_the_script_with_its_overrides_in_its_folder(sweep, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "-cd", "more", "--config-name=other", "pattern=window,random"])
    monkeypatch.setattr("sys.executable", "python")
    _, config = sweep
    config.hydra.overrides.hydra = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=x", "hydra.verbose=true"]
    line = CommandLine.of(TRAIN, config)
    assert line.of_job(["folder=outputs/a", "pattern=random"], Path("outputs/a/3")) == [
        *("python", "/there/train.py", "--config-name", "other", "--config-dir", "more"),
        *("pattern=random", "hydra.verbose=true", "folder=outputs/a/3", "hydra.mode=RUN"),
    ]


def test_a_folder_with_special_characters_is_quoted():
    command = CommandLine(TRAIN, [], []).of_job([], Path("it's, so/0"))
    assert command[2] == r"folder='it\'s, so/0'"


def test_a_folder_whose_name_is_a_number_stays_a_text():
    assert CommandLine(TRAIN, [], []).of_job([], Path("0"))[2] == "folder='0'"


def test_a_config_of_a_job_holds_its_overrides(sweep):
    context, config = sweep
    job = compose_job(context.config_loader, config, ["pattern=random", "trainer.max_steps=7"])
    assert (job.pattern["_target_"], job.trainer.max_steps) == ("sparse_attention.patterns.random", 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pattern=windo", "pattern=windo: no such pattern; did you mean window?"),
        ("patern=window", "patern: train.yaml has no such option; did you mean pattern?"),
        ("model.num_layers=x", "model.num_layers=x: expected an integer"),
        ("trainer.max_steps=-1", "trainer.max_steps=-1: crops never run out"),
    ],
)
def test_options_that_cannot_be_used_are_named_before_anything_runs(sweep, override, message):
    context, config = sweep
    with pytest.raises(UsageError) as caught:
        compose_job(context.config_loader, config, [override])
    assert str(caught.value).startswith(message)
