"""What a run came from: the code, the command line and the versions that it ran with."""

import functools
import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "lightning", "numpy", "wandb")


def provenance() -> dict[str, Any]:
    """Facts for summary.json and W&B.

    Returns:
        ``command``; ``commit`` of the repository that the code lies in and whether it was ``changed`` since, None
        where there is no repository; and the versions of Python, CUDA and the packages that figures depend on.
    """
    commit = _git("rev-parse", "HEAD")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit,
        "changed": None if commit is None else bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **{name: version(name) for name in PACKAGES},
    }


@functools.cache
def _git(*arguments: str) -> str | None:
    """What git says of the code's repository; None without git or a repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
