"""Folders of runs and sweeps that nobody ran, with curves like those of real ones.

python -m tests.longtag.report.fake FOLDER draws a sweep of six patterns and two seeds, to look at its report.
"""

import json
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CLASSES = ("intergenic", "coding +", "coding -", "RNA +", "RNA -")
PATTERNS: dict[str, dict[str, Any]] = {
    "window": {"_target_": "sparse_attention.patterns.window", "window": 16},
    "random": {"_target_": "sparse_attention.patterns.random", "keys_per_query": 8, "seed": "${seed}"},
    "dilated": {"_target_": "sparse_attention.patterns.dilated", "window": 2, "dilations": [1, 9, 81, 729]},
    "bigbird": {"_target_": "sparse_attention.patterns.bigbird", "block_size": 64, "seed": "${seed}"},
    "longformer": {"_target_": "sparse_attention.patterns.longformer", "window": 16, "num_global": 2},
    "logsparse": {"_target_": "sparse_attention.patterns.logsparse", "window": 2},
}
PARTS = {"weights": 0.1, "gradients": 0.1, "optimizer_states": 0.2, "activations": 0.5, "temporary": 0.1}
# Final quality, peak memory in GiB and tokens per second, roughly as such patterns come out.
FIGURES = {
    "window": (0.71, 3.1, 910_000),
    "random": (0.93, 4.4, 640_000),
    "dilated": (0.97, 3.6, 820_000),
    "bigbird": (0.985, 5.2, 560_000),
    "longformer": (0.94, 3.9, 700_000),
    "logsparse": (0.992, 4.1, 720_000),
}


def write_run(
    folder: Path,
    *,
    pattern: str = "window",
    seed: int = 0,
    figures: tuple[float, float, float] | None = None,
    steps: int = 300,
    status: str | None = "completed",
    error: str | None = None,
    overrides: Sequence[str] = (),
    tokens: int = 20_000,
    distances: Sequence[int] = (),
    evaluated: bool = True,
    track: str | None = None,
) -> Path:
    """A run of so many steps; without a status there is no summary, as while a run goes on."""
    quality, memory, speed = figures or FIGURES[pattern]
    rng = np.random.default_rng([seed, *pattern.encode()])
    quality = min(1.0, quality + 0.006 * rng.standard_normal())
    config = {
        "pattern": {**PATTERNS.get(pattern, {"_target_": f"nowhere.{pattern}"}), "_partial_": True},
        "tokens": tokens,
        "seed": seed,
        "monitor": "val/f1_macro",
        "data": {"track": track},
    }
    written = [f"pattern={pattern}", f"seed={seed}", *overrides]
    for item in overrides:
        name, _, value = item.partition("=")
        if "." not in name:
            config[name] = yaml.safe_load(value)
    choices = {"pattern": pattern, "data": "genome"}
    hydra = folder / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text(yaml.safe_dump(config))
    (hydra / "overrides.yaml").write_text(yaml.safe_dump(written))
    (hydra / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": choices}}}))
    lines = _lines(rng, steps, quality, memory, speed)
    tested = _scores("test", quality) if status == "completed" else {}
    tested |= {
        f"test/accuracy_at_distance/{distance}": _at_distance(pattern, distance, rng)
        for distance in (distances if tested else ())
    }
    if tested:
        lines.append({"step": steps, **tested})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if status:
        facts = {"data": "genome", "pattern": pattern, "implementation": "triton", "tokens": tokens, "seed": seed}
        facts |= {"parameters": 9_540_613, "device": "NVIDIA H100 80GB HBM3", "torch": "2.11.0"}
        last = {name: value for line in lines for name, value in line.items() if name != "step"}
        summary = {"status": status, "steps": steps, **facts, **last, **({"error": error} if error else {})}
        (folder / "summary.json").write_text(json.dumps(summary))
    if evaluated and status == "completed":
        (folder / "figures").mkdir()
        (folder / "figures" / "evaluation.json").write_text(json.dumps(evaluation(quality, rng)))
    return folder


def write_sweep(folder: Path, patterns: Sequence[str] = tuple(PATTERNS), seeds: int = 2, **options: Any) -> Path:
    """A folder for each job, and sweep.json; every run completed."""
    jobs = []
    for pattern in patterns:
        for seed in range(seeds):
            number = len(jobs)
            write_run(folder / str(number), pattern=pattern, seed=seed, **options)
            jobs.append(job(number, [f"pattern={pattern}", f"seed={seed}"]))
    write_jobs(folder, jobs)
    return folder


def write_lengths(
    folder: Path,
    patterns: Sequence[str] = ("dilated", "bigbird"),
    lengths: Sequence[int] = (1000, 2000, 4000, 8000),
    *,
    presets: Sequence[str] = ("fast",),
    power: float = 1.0,
    fixed_gib: float = 0.0,
    seeds: int = 1,
    **options: Any,
) -> Path:
    """A run for each pattern, preset and length, whose step takes 0.1 ms x tokens^power; each preset halves memory."""
    jobs = []
    for pattern, tokens, seed in product(patterns, lengths, range(seeds)):
        for place, preset in enumerate(presets):
            number = len(jobs)
            overrides = [f"tokens={tokens}", *([f"memory={preset}"] if len(presets) > 1 else [])]
            gib = fixed_gib + tokens / 1000 / 2**place
            figures = (0.9, gib, 1e9 / tokens**power / (1 + place))
            write_run(folder / str(number), pattern=pattern, seed=seed, overrides=overrides, figures=figures, **options)
            jobs.append(job(number, [f"pattern={pattern}", *overrides]))
    write_jobs(folder, jobs)
    return folder


def job(number: int, overrides: Sequence[str], status: str = "completed", error: str | None = None) -> dict[str, Any]:
    return {"number": number, "overrides": list(overrides), "status": status, "error": error, "folder": str(number)}


def write_jobs(folder: Path, jobs: Sequence[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps({"task": "train", "group": "patterns", "jobs": list(jobs)}))


def evaluation(quality: float, rng: np.random.Generator) -> dict[str, Any]:
    """As the callback writes it, of a model that is right in `quality` of 100,000 tokens."""
    share = np.array([0.12, 0.44, 0.42, 0.012, 0.008])
    confusion = np.outer(share, share) * 100_000 * (1 - quality)
    confusion[np.diag_indices(5)] = share * 100_000 * quality
    confusion = confusion.round().astype(int)
    sure = (np.arange(15) + 0.5) / 15
    count = np.exp(8 * sure).round()
    return {
        "class_names": list(CLASSES),
        "labelled": confusion.sum(1).tolist(),
        "predicted": confusion.sum(0).tolist(),
        "right": confusion.diagonal().tolist(),
        "confusion": confusion.tolist(),
        "calibration": {
            "count": count.tolist(),
            "confidence": sure.tolist(),
            "accuracy": (sure**1.3).tolist(),
            "expected_calibration_error": float((count * (sure - sure**1.3)).sum() / count.sum()),
        },
        "stretches": [_stretch(why, rng) for why in ("most errors", "typical", "most changes of label")],
    }


def _stretch(why: str, rng: np.random.Generator) -> dict[str, Any]:
    labels = [[0, 210], [1, 930], [0, 60], [1, 800], [0, 200], [2, 600], [0, 100], [4, 100]]
    predictions = [[0, 230], [1, 900], [2, 300], [1, 510], [0, 200], [2, 580], [0, 180], [4, 100]]
    confidence = np.clip(0.9 + 0.1 * rng.standard_normal(200), 0.3, 1)
    return {
        "why": why,
        "crop": 3,
        "start": 42_000,
        "accuracy": 0.81,
        "labels": labels,
        "predictions": predictions,
        "confidence": confidence.tolist(),
    }


def _lines(rng: np.random.Generator, steps: int, quality: float, memory: float, speed: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(steps):
        progress = (step + 1) / max(steps, 1)
        loss = 1.6 * np.exp(-4 * progress) + 1.4 * (1 - quality) + 0.04 * rng.standard_normal() ** 2
        held = memory * (1 - 0.15 * (step == 0)) * (1 + 0.002 * rng.standard_normal())
        pace = speed * (0.2 if step == 0 else 1 + 0.01 * rng.standard_normal())
        lines.append({
            "step": step, "time": 1e9 + step, "train/loss": loss, "memory/peak_allocated_gib": held,
            "throughput/tokens_per_second": pace, "throughput/step_ms": 1e8 / pace,
            **{f"memory/{part}_gib": share * held for part, share in PARTS.items()},
        })  # fmt: skip
        if (step + 1) % max(steps // 10, 1) == 0:
            so_far = quality * (1 - 0.6 * np.exp(-5 * progress))
            lines.append({"step": step, "time": 1e9 + step, **_scores("val", so_far)})
    return lines


def _scores(split: str, quality: float) -> dict[str, float]:
    each = {f"{split}/f1/{name}": quality**power for name, power in zip(CLASSES, (1.2, 0.8, 0.8, 3, 5), strict=True)}
    return {
        f"{split}/loss": 1.2 * (1 - quality) + 0.02,
        f"{split}/accuracy": quality,
        f"{split}/f1_macro": sum(each.values()) / len(each),
        f"{split}/mcc": quality**1.5,
        **each,
    }


def _at_distance(pattern: str, distance: int, rng: np.random.Generator) -> float:
    reach = {"window": 64, "longformer": 400, "dilated": 6_000, "random": 3e4}.get(pattern, 1e6)
    return float(0.44 + 0.55 / (1 + (distance / reach) ** 2) + 0.005 * rng.standard_normal())


if __name__ == "__main__":
    write_sweep(Path(sys.argv[1]), tokens=100_000, distances=[2**power for power in range(2, 18)])
