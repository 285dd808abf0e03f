"""What to say when the memory of a device did not suffice: what was asked, what is needed, and what would fit."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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

ADVICE: dict[str, Levers] = {
    "memory.checkpoint=selective": Levers(checkpoint="selective"),
    "memory=balanced": Levers(checkpoint="blocks"),
    "memory.tile_tokens=8192": Levers(tile_tokens=8192),
    "memory=balanced memory.residual=bfloat16": Levers(checkpoint="blocks", residual="bfloat16"),
    "memory=balanced memory.tile_tokens=8192": Levers(checkpoint="blocks", tile_tokens=8192),
    "memory=balanced memory.tile_tokens=8192 memory.residual=bfloat16": Levers(
        checkpoint="blocks", tile_tokens=8192, residual="bfloat16"
    ),
    "memory=lean": Levers(checkpoint="blocks", tile_tokens=8192, tile_heads=4, residual="bfloat16"),
}
"""Overrides and the levers that they choose."""
LEANEST = "memory=lean"


def describe(
    error: torch.OutOfMemoryError, config: DictConfig, model: TokenClassifier, device: torch.device, checkpoint: Path
) -> str:
    """The message for a run that ended so, over several lines.

    model:      what was trained.
    checkpoint: where the run's last one lies if there is one.
    """
    lines = [f"out of memory: {_asked(str(error))}", ""]
    try:
        subject = _as_built(build_subject(config, device.type), model)
        lines += _explained(subject, _room(device))
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


def _explained(subject: Subject, room: int) -> list[str]:
    standing = count_standing(subject)
    ours = estimate(subject, standing)
    lines = [*categories_as_text(ours).splitlines(), f"{room / GIB:.2f} GiB can be had; what would fit, fastest first:"]
    fitting = list(_fitting(subject, ours, standing, room))
    for override, found in fitting[:MOST_ADVICE]:
        slower = found.cost.seconds / ours.cost.seconds
        lines.append(f"  {override}   {found.peak / GIB:.2f} GiB, {slower:.2f} times the time")
    if not fitting:
        lean = replace(subject, levers=ADVICE[LEANEST], levers_of_blocks=None)
        most = round(SAFE * room)
        ways = (("", subject, ours), (f"{LEANEST} ", lean, estimate(lean, standing)))
        lengths = [(way, longest(shortened, standing, most, known)) for way, shortened, known in ways]
        lines += [f"  {way}tokens={tokens}" for way, tokens in lengths if tokens] or [
            "  nothing of 1000 tokens or more; take a smaller model"
        ]
    return lines


def _fitting(subject: Subject, ours: Estimate, standing: Standing, room: int) -> Iterator[tuple[str, Estimate]]:
    """What fits, fastest first; nothing that needs as much as something faster does."""
    found = [
        (override, estimate(replace(subject, levers=levers, levers_of_blocks=None), standing))
        for override, levers in ADVICE.items()
    ]
    least = ours.peak
    for override, needs in sorted(found, key=lambda advice: advice[1].cost.seconds):
        if needs.peak < least:
            least = needs.peak
            if needs.peak <= SAFE * room:
                yield override, needs
