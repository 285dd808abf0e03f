import errno

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode

from longtag.entry import explain, multirun_first, readable_errors
from longtag.errors import UsageError

from .conftest import CONF


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("tokens=0: expected 1 or more"), 2, "error: tokens=0: expected 1 or more\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/run"), 2, "error: /x/run: Permission denied"),
        (
            UsageError("data.gff=x, line 3: expected 9 columns\n  row: a"),
            2,
            "error: data.gff=x, line 3: expected 9 columns\n  row: a\n",
        ),
        (MemoryError(), 1, "out of memory: this machine could not give more; give fewer tokens=..."),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000 bytes. Error code 12"),
            1,
            "out of memory: this machine could not allocate 8000 bytes; give fewer tokens=...",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_error_becomes_one_message_and_an_exit_code(capsys, error, code, message):
    with pytest.raises(SystemExit) as left, readable_errors(CONF):
        raise error
    assert left.value.code == code
    assert capsys.readouterr().err.startswith(message)


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(OSError, match="broken pipe"), readable_errors(CONF):
        raise OSError(errno.EPIPE, "broken pipe")


def test_a_job_of_a_multirun_leaves_its_errors_to_the_launcher():
    with pytest.raises(UsageError), readable_errors(CONF, RunMode.MULTIRUN):
        raise UsageError("tokens=0: expected 1 or more")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokens"], "tokens: cannot be read; options are written name=value"),
        (["model.d_model=["], "model.d_model=[: cannot be read; options are written name=value"),
        (["--foo"], "--foo: cannot be read; options are written name=value"),
        (["tokens=1,2"], "tokens=1,2: several values are for a sweep, python train.py -m"),
    ],
)
def test_what_hydra_cannot_read_is_named_in_one_line(arguments, message):
    with (
        initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(HydraException) as caught,
    ):
        compose("train", arguments)
    explained = explain(caught.value, CONF, arguments)
    assert explained.startswith(message)
    assert "\n" not in explained


@pytest.mark.parametrize("verb", ["find", "load"])
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(verb):
    error = ConfigCompositionException(f"Could not {verb} 'hydra/launcher/submitit_slurm'")
    assert explain(error, CONF, []) == (
        'hydra/launcher=submitit_slurm: needs a plugin of Hydra; pip install -e ".[slurm]" brings it'
    )


def test_a_sweep_may_be_asked_for_behind_options():
    assert multirun_first(["seed=1", "-m", "pattern=window,random"]) == ["-m", "seed=1", "pattern=window,random"]
