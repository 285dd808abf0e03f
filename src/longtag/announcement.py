"""What a run says on the terminal before its first step and after its last."""

import platform
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from rich import box
from rich.console import Console
from rich.table import Column, Table

from sparse_attention import Layout

SPEED_AND_MEMORY = (
    "throughput/tokens_per_second",
    "throughput/step_ms",
    "throughput/mfu",
    "memory/peak_allocated_gib",
    "memory/peak_reserved_gib",
    "memory/peak_rss_gib",
)


def announce(facts: Mapping[str, str]) -> None:
    """Print one short block of facts: device, parameters, pattern, implementation and why, tokens per step."""
    for name, value in facts.items():
        print(f"{name:15}{value}", flush=True)


def show_results(last: Mapping[str, Any], best: Mapping[str, Any], folder: str) -> None:
    """Print the scores of validation and test side by side, then speed, memory and where the run lies."""
    names = dict.fromkeys(name.split("/", 1)[1] for name in last if name.startswith(("val/", "test/")))
    table = Table(
        Column("", no_wrap=True), "validation, last", "validation, best", "test, best checkpoint", box=box.ASCII2
    )
    for name in names:
        scores = (last.get(f"val/{name}"), best.get(f"val/{name}"), last.get(f"test/{name}"))
        table.add_row(name, *("" if score is None else f"{score:.4f}" for score in scores))
    if names:
        Console(highlight=False).print(table)
    for name in SPEED_AND_MEMORY:
        if name in last:
            print(f"{name:32}last {last[name]:,.2f}  best {best[name]:,.2f}")
    print(f"metrics, checkpoints and summary: {folder}")


def describe_device(device: torch.device) -> str:
    """The device as a reader of a benchmark wants it, for example ``NVIDIA H100 80GB HBM3``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def describe_layout(layout: Layout) -> str:
    """How it is stored, how many pairs attend to one another, and how evenly."""
    # Which keys are hubs is not known of a pattern that chooses them anew at every step.
    evenness = "keys chosen at every step" if layout.depends_on_inputs else f"highest degree {layout.max_degree:,}"
    return (
        f"{layout.kind}, {layout.num_edges:,} edges, {layout.keys_per_query:.4g} keys a query, "
        f"density {layout.density:.2g}, {evenness}"
    )


def describe_step(trainer: L.Trainer, batch_size: int, tokens: int) -> str:
    """Tokens in one optimizer step, over all devices and accumulated batches."""
    crops = trainer.accumulate_grad_batches * trainer.world_size * batch_size
    return f"{tokens * crops:,} in {crops} crop{'s' if crops > 1 else ''} of {tokens:,}"
