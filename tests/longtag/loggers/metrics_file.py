"""metrics.jsonl, as W&B should have it."""

import json
from pathlib import Path


def by_step(folder: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl, those of one step together."""
    steps: dict[int, dict] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        figures = json.loads(line)
        steps.setdefault(figures["step"], {}).update(figures)
    return [steps[step] for step in sorted(steps)]
