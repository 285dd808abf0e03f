"""What Hydra calls when all jobs of a sweep have ended, whichever sweeper and launcher ran them."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepEnd(Callback):
    """Prints the table, writes the report, and leaves with exit code 1 if a job failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from longtag.sweep.conclusion import conclude

        record = conclude(Path(config.hydra.sweep.dir))
        if any(job.status in ("failed", "interrupted") for job in record.jobs):
            raise SystemExit(1)
