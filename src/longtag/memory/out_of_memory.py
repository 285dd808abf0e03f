"""What to say when the memory of a device did not suffice: what was asked, what is needed, and what would fit."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from longtag.assembly import build_subject
from longtag.memory import Levers
from longtag.memory.estimate.count import Standing, count_standing
from longtag.memory.estimate.estimate import Estimate, estimate
from longtag.memory.estimate.longest import longest
from longtag.memory.estimate.subject import Subject
from longtag.memory.estimate.tables import categories_as_text
from longtag.model import TokenClassifier

GIB = 2**30
MOST_ADVICE = 3
SAFE = 0.95
"""Share of the memory that advice fills at most: estimates are off by a few per cent, and allocators leave gaps."""

ADVICE: tuple[dict[str, Any], ...] = (
    {"checkpoint": "selective"},
    {"checkpoint": "blocks"},
    {"tile_tokens": 8192},
    {"checkpoint": "blocks", "residual": "bfloat16"},
    {"checkpoint": "blocks", "tile_tokens": 8192},
    {"checkpoint": "blocks", "tile_tokens": 8192, "residual": "bfloat16"},
    {"checkpoint": "blocks", "tile_tokens": 8192, "residual": "bfloat16", "offload": True},
    {"checkpoint": "blocks", "tile_tokens": 8192, "residual": "bfloat16", "offload": True, "tile_heads": 4},
)
"""Levers that are tried, each beside the residual stream as it is unless it is named; the last one is the leanest."""


def describe(
    error: torch.OutOfMemoryError, config: DictConfig, model: TokenClassifier, device: torch.device, checkpoint: Path
) -> str:
    """The message for a run that ended so, over several lines.

    model:      what was trained.
    checkpoint: where the run's last one lies if there is one.
    """
    lines = [f"out of memory: {_asked(str(error))}", ""]
    try:
        subject = build_subject(config, device.type)
        lines += _explained(_as_built(subject, model), subject.levers, _room(device))
    except Exception as failure:  # The reason why the run ended must not be hidden by another one.
        lines.append(f"(what it needs could not be estimated: {failure})")
    if checkpoint.is_file():
        lines.append(f"the last checkpoint is whole: {checkpoint}; the same folder=... given again goes on from it")
    else:
        lines.append("no checkpoint had been saved yet")
    return "\n".join(lines)


def _as_built(subject: Subject, model: TokenClassifier) -> Subject:
    """With the levers that were chosen, where that was left to a plan."""
    if subject.levers.checkpoint != "auto":
        return subject
    of_blocks = tuple(block.levers for block in model.encoder.blocks)
    return replace(subject, levers=model.levers, levers_of_blocks=of_blocks)


def _asked(message: str) -> str:
    """What torch says of size and free memory, without its advice on environment variables."""
    found = re.search(
        r"Tried to allocate ([\d.]+ \w+).*?capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", message
    )
    if found:
        return f"{found[1]} were asked for, {found[3]} of {found[2]} were free"
    return message.splitlines()[0] if message else "the device says no more"


def _room(device: torch.device) -> int:
    """Bytes that a run by itself can have."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _explained(subject: Subject, given: Levers, room: int) -> list[str]:
    """given: the levers of the config, from which overrides start."""
    standing = count_standing(subject)
    ours = estimate(subject, standing)
    lines = [*categories_as_text(ours).splitlines(), f"{room / GIB:.2f} GiB can be had; what would fit, fastest first:"]
    fitting = list(_fitting(subject, given, ours, standing, room))
    for override, found in fitting[:MOST_ADVICE]:
        slower = found.cost.seconds / ours.cost.seconds
        lines.append(f"  {override}   {found.peak / GIB:.2f} GiB, {slower:.2f} times the time")
    if not fitting:
        lean = _with(subject, ADVICE[-1])
        most = round(SAFE * room)
        ways = (("", subject, ours), (f"{_overrides(given, lean.levers)} ", lean, estimate(lean, standing)))
        lengths = [(way, longest(shortened, standing, most, known)) for way, shortened, known in ways]
        lines += [f"  {way}tokens={tokens}" for way, tokens in lengths if tokens] or [
            "  nothing of 1000 tokens or more; take a smaller model"
        ]
    return lines


def _fitting(
    subject: Subject, given: Levers, ours: Estimate, standing: Standing, room: int
) -> Iterator[tuple[str, Estimate]]:
    """What fits, fastest first; nothing that needs as much as something faster does."""
    ways = [_with(subject, advice) for advice in ADVICE]
    found = [(_overrides(given, way.levers), estimate(way, standing)) for way in ways]
    least = ours.peak
    for override, needs in sorted(found, key=lambda advice: advice[1].cost.seconds):
        if needs.peak < least:
            least = needs.peak
            if needs.peak <= SAFE * room:
                yield override, needs


def _with(subject: Subject, options: dict[str, Any]) -> Subject:
    """With these levers alone, and the residual stream as it is unless they name it."""
    options = {"residual": subject.levers.residual, **options}
    return replace(subject, levers=Levers(**options), levers_of_blocks=None)


def _overrides(given: Levers, wanted: Levers) -> str:
    before = asdict(given)
    changed = {name: value for name, value in asdict(wanted).items() if value != before[name]}
    words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in changed.items()}
    return " ".join(f"memory.{name}={word}" for name, word in words.items())
