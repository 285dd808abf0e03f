from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

from longtag.errors import UsageError
from longtag.sweep.other_launcher import launch_recorded

from .conftest import written


class Scripted(Launcher):
    """Hands back what it was made with, or raises it."""

    def __init__(self, *ends: Any) -> None:
        self.ends = ends

    def setup(self, **kwargs: Any) -> None:
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        returns = []
        for end in self.ends:
            if isinstance(end, KeyError):
                raise end
            failed = isinstance(end, Exception)
            returns.append(JobReturn(status=JobStatus.FAILED if failed else JobStatus.COMPLETED, _return_value=end))
        return returns


def test_what_comes_back_is_written_down_batch_by_batch(tmp_path):
    launch_recorded(Scripted(0.5, UsageError("seed=1: no")), tmp_path, [["seed=0", "folder=x"], ["seed=1"]], 0)
    launch_recorded(Scripted(RuntimeError("broken")), tmp_path, [["seed=2"]], 2)
    assert [(job["number"], job["overrides"], job["status"], job["error"]) for job in written(tmp_path)] == [
        (0, ["seed=0"], "completed", None),
        (1, ["seed=1"], "failed", "seed=1: no"),
        (2, ["seed=2"], "failed", "RuntimeError: broken"),
    ]
    assert written(tmp_path)[0]["objective"] == 0.5


def test_a_launcher_that_gives_up_loses_no_finished_job(tmp_path, capsys):
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
    (tmp_path / "0/summary.json").write_text(
        '{"status": "completed", "monitor": "val/loss", "best": {"val/loss": 0.25}}'
    )
    launch_recorded(Scripted(KeyError("job lost")), tmp_path, [["seed=0"], ["seed=1"]], 0)
    assert [(job["status"], job["objective"]) for job in written(tmp_path)] == [
        ("completed", 0.25),
        ("interrupted", None),
    ]
    assert "job lost" in capsys.readouterr().err
