"""What stands around a command: errors become messages that name the fix, and the exit code says how it ended.

0 done, 1 a fault of the program (with its traceback) or too little memory, 2 input that the user can mend, 130
interrupted, 143 terminated, 138 or 140 warned by a queue (128 and the signal's number).
"""

import contextlib
import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from longtag.errors import OutOfMemory, UsageError, unknown_option

# Hydra prints errors itself unless it is told to raise them, and then they can be explained here.
os.environ.setdefault("HYDRA_FULL_ERROR", "1")
# Threads that wait sleep: on cores that are shared, spinning made a step of 0.6 s last up to 28 s.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Huge pages for large tensors on the CPU: a step over 1,000,000 tokens took 23 s instead of 30 s.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

PLUGINS = {
    "optuna": "optuna",
    "joblib": "joblib",
    "submitit_slurm": "slurm",
    "submitit_local": "slurm",
}
"""Choices that plugins of Hydra bring, and the extra of this project that installs each."""

HOW_TO_WRITE = "name=value, lists as name=[1,2], texts with spaces or commas in quotes"

HOST_OUT_OF_MEMORY = re.compile(r"allocate [\d.]+ \w+")
"""What torch and NumPy say when the host cannot give as much as they ask for at once."""

FULL_ERROR = "LONGTAG_FULL_ERROR"
"""Environment variable that, set to 1, asks for the traceback at out-of-memory too."""


def multirun_first(arguments: list[str]) -> list[str]:
    """The arguments with -m ahead: behind overrides, Hydra refuses those that follow it."""
    return sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))


def start(main: Callable[[], object], conf: Path) -> None:
    """Run a command that Hydra has wrapped, with readable errors, and -m wherever it stands."""
    # Not the end at once, so that what was begun is cleared away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.argv[1:] = multirun_first(sys.argv[1:])
    with readable_errors(conf):
        main()


@contextlib.contextmanager
def readable_errors(conf: Path, mode: RunMode | None = RunMode.RUN) -> Iterator[None]:
    """Turn what a command raises into one message on stderr and an exit code.

    Args:
        conf: the folder of the config, where the alternatives to a misspelt option are looked up.
        mode: Hydra's; a job of a multirun leaves errors to the launcher, which may go on to the next job.
    """
    if mode is RunMode.MULTIRUN:
        yield
        return
    try:
        yield
    except UsageError as error:
        _leave(str(error), 2)
    except OutOfMemory as error:
        if os.environ.get(FULL_ERROR):
            raise
        _leave(str(error), 1)
    except (MemoryError, RuntimeError) as error:
        asked = HOST_OUT_OF_MEMORY.search(str(error))
        if os.environ.get(FULL_ERROR) or not (asked or isinstance(error, MemoryError)):
            raise
        _leave(
            f"out of memory: this machine could not {asked[0] if asked else 'give more'}; give fewer tokens=..., "
            "crops.batch_size=1 or memory=lean",
            1,
        )
    except HydraException as error:
        _leave(explain(error, conf, sys.argv[1:]), 2)
    except OmegaConfBaseException as error:
        _leave(f"{error.full_key}: {str(error).splitlines()[0]}", 2)
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _leave("no space left on the disk; free some and give the same folder=... again to go on", 2)
        if error.filename is None:
            raise
        _leave(f"{error.filename}: {error.strerror}; give another path, for example folder=outputs/mine", 2)


def _leave(message: str, code: int) -> None:
    for line in message.splitlines():
        # What is set in belongs to the line above it.
        print(f"error: {line}" if code == 2 and not line.startswith(" ") else line, file=sys.stderr)
    sys.exit(code)


def explain(error: HydraException, conf: Path, arguments: list[str]) -> str:
    """Hydra's message, or a better one where the mistake can be named.

    Args:
        error: what Hydra raised.
        conf: the folder of the config, where the alternatives to a misspelt option are looked up.
        arguments: the overrides that were composed.
    """
    message = str(error)
    if found := re.search(r"Could not override '([^']+)'", message):
        return _unknown_option(found[1], conf, arguments)
    if found := re.search(r"Could not (?:find|load) '([^']+)/([^'/]*)'", message):
        return _unknown_choice(found[1], found[2], conf)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read; options are written {HOW_TO_WRITE}"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", message):
        return f"{found[1]}: several values are for a sweep, python train.py -m ...; {HOW_TO_WRITE}"
    cause = f"\n{error.__cause__}" if error.__cause__ else ""
    return "; ".join((message + cause).strip().splitlines())


def _unknown_option(path: str, conf: Path, arguments: list[str]) -> str:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig, OmegaConf

    known = [item for item in arguments if "=" in item and item.lstrip("+~").split("=")[0] != path]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose("train", known, return_hydra_config=True)
    choices = config.hydra.runtime.choices
    parent, _, _ = path.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    while not isinstance(node, DictConfig):
        path, (parent, _, _) = parent, parent.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
    allowed = [str(name) for name in node if not str(name).startswith("_") and name != "hydra"]
    if not parent:
        allowed += [group.name for group in conf.iterdir() if group.is_dir()]
    return unknown_option(path, choices.get(parent) or parent or "train.yaml", allowed)


def _unknown_choice(group: str, choice: str, conf: Path) -> str:
    if choice in PLUGINS:
        return f'{group}={choice}: needs a plugin of Hydra; pip install -e ".[{PLUGINS[choice]}]" brings it'
    names = sorted(file.stem for file in (conf / group).glob("*.yaml"))
    near = difflib.get_close_matches(choice, names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{group}={choice}: no such {group}; {hint}{group} is one of {', '.join(names)}"
