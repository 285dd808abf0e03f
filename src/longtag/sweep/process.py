"""One job in a process of its own: memory, CUDA state and W&B run end with it."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from longtag.sweep.outcome import LOG, Outcome, outcome

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class JobProcess:
    """Starts a job; its output goes to ``output.log`` in its folder, behind that of an earlier try.

    The process leads a session of its own, so that Ctrl-C in the terminal reaches it through the sweep alone; if the
    sweep is killed, the job is told to stop and saves its checkpoint.

    Args:
        command: what to run.
        folder: the folder of the job.
        gpus: the GPUs that it may see, as CUDA_VISIBLE_DEVICES names them; empty to leave that as it is.
        cpu_share: number of jobs that share the cores of the CPU.
    """

    def __init__(self, command: Sequence[str], folder: Path, *, gpus: Sequence[str] = (), cpu_share: int = 1) -> None:
        self.folder = folder
        self.gpus = list(gpus)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / LOG).open("a") as log:
            log.write(f"$ {shlex.join(command)}\n")
            log.flush()
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(self.gpus, cpu_share),
                start_new_session=True,
                preexec_fn=_stop_with_parent,
            )

    def send(self, number: int) -> None:
        """Send a signal to the job and to all that it started, as a terminal does."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)

    def outcome(self) -> Outcome | None:
        """How it ended; None while it runs."""
        exit_code = self._process.poll()
        if exit_code is None:
            return None
        if exit_code < 0:
            # Killed: it could not stop what it had started, and that may hold GPUs.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
        return outcome(self.folder, exit_code, self._log_start)


def _environment(gpus: Sequence[str], cpu_share: int) -> dict[str, str]:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    if cpu_share > 1:
        # Each would take all cores otherwise, and then they wait for one another.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // cpu_share)))
    return environment


def _stop_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
