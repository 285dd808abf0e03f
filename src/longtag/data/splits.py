"""Divide a genome into blocks for training, validation and test: read from a json file, or made by rule."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from longtag.data.reading import open_input
from longtag.data.source import Block, Split
from longtag.errors import UsageError

Blocks = dict[Split, tuple[Block, ...]]

SPLITS: tuple[Split, ...] = get_args(Split)
FORM = (
    'expected {"train": [[start, stop], ...], "val": ..., "test": ...} with 0-based half-open intervals, or for more '
    'contigs {"train": {"contig": [[start, stop], ...]}, ...}'
)
MOST_CYCLES = 2


def read_split(path: str | Path, lengths: Mapping[str, int], circular: Sequence[bool]) -> Blocks:
    """Blocks from a json file; `lengths` and `circular` describe the contigs, in the order of their records.

    Raises UsageError for a file that is missing or not of the form, a contig that the genome lacks, an interval that
    lies outside its contig, and intervals that overlap.
    """
    with open_input(path, "split") as file:
        text = file.read()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UsageError(f"split={path}: not json ({error}); {FORM}") from error
    if not isinstance(content, dict) or set(content) != set(SPLITS):
        raise UsageError(f"split={path}: {FORM}")
    try:
        blocks: Blocks = {split: _blocks(content[split], lengths, circular) for split in SPLITS}
        if empty := [split for split in SPLITS if not blocks[split]]:
            raise ValueError(f"no interval for {' and '.join(empty)}; each split needs one at least")
        _require_disjoint(blocks, list(lengths))
    except ValueError as error:
        raise UsageError(f"split={path}: {error}") from error
    return blocks


def _blocks(content: Any, lengths: Mapping[str, int], circular: Sequence[bool]) -> tuple[Block, ...]:
    if isinstance(content, list):
        if len(lengths) > 1:
            raise ValueError(f"the genome has {len(lengths)} contigs, so intervals must be listed by contig; {FORM}")
        content = {next(iter(lengths)): content}
    if not isinstance(content, dict):
        raise ValueError(FORM)
    names, blocks = list(lengths), []
    for name, intervals in content.items():
        if name not in lengths:
            raise ValueError(f"contig {name!r} is not in the genome, which has {', '.join(names[:5])}")
        if not isinstance(intervals, list):
            raise ValueError(FORM)
        for interval in intervals:
            blocks.append(_block(names.index(name), interval, name, lengths[name], circular[names.index(name)]))
    return tuple(blocks)


def _block(record: int, interval: Any, name: str, length: int, circular: bool) -> Block:
    if not (isinstance(interval, list) and len(interval) == 2 and all(type(end) is int for end in interval)):
        raise ValueError(f"{interval!r} on contig {name} is no [start, stop]; {FORM}")
    start, stop = interval
    if not 0 <= start < stop <= length:
        raise ValueError(
            f"interval {interval} on contig {name} of {length} bases: 0 <= start < stop <= {length} must hold"
        )
    return Block(record, start, stop, circular=circular and stop - start == length)


def _require_disjoint(blocks: Blocks, names: Sequence[str]) -> None:
    everything = [(block.record, block.start, block.stop, split) for split in SPLITS for block in blocks[split]]
    for (record, start, stop, split), (next_record, next_start, next_stop, next_split) in pairwise(sorted(everything)):
        if record == next_record and next_start < stop:
            raise ValueError(
                f"intervals [{start}, {stop}] ({split}) and [{next_start}, {next_stop}] ({next_split}) on contig "
                f"{names[record]} overlap; no base may be used twice"
            )


def make_split(
    lengths: Sequence[int], circular: Sequence[bool], *, val_fraction: float, test_fraction: float, gap: int
) -> Blocks:
    """Blocks made by a fixed rule, the same for the same lengths.

    A long contig is cut in one or two cycles of train, val, train, test, with `gap` unused bases after each block, so
    that blocks of different splits are no neighbours, also round the origin. A contig too short for that goes whole to
    the split that lacks most of its share, longest contigs first.

    Raises UsageError where validation or test remain without a block.
    """
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise UsageError(f"{name}={fraction}: must lie between 0 and 1")
    if val_fraction + test_fraction >= 1:
        raise UsageError(f"val_fraction={val_fraction} and test_fraction={test_fraction} leave nothing to train on")
    if gap < 0:
        raise UsageError(f"split_gap={gap}: must be 0 or more bases")

    fractions: dict[Split, float] = {
        "train": 1 - val_fraction - test_fraction,
        "val": val_fraction,
        "test": test_fraction,
    }
    blocks: dict[Split, list[Block]] = {split: [] for split in SPLITS}
    whole = []
    for record, length in enumerate(lengths):
        cycles = _num_cycles(length, fractions, gap)
        if not cycles:
            whole.append(record)
        for cycle in range(cycles):
            _cut_cycle(blocks, record, cycle * length // cycles, (cycle + 1) * length // cycles, fractions, gap)
    _share_out(blocks, sorted(whole, key=lambda record: -lengths[record]), lengths, circular, fractions)
    for split in SPLITS:
        if not blocks[split]:
            raise UsageError(
                f"split=null: a genome of {sum(lengths):,} bases in {len(lengths)} contigs cannot be divided with "
                f"split_gap={gap}: {split} stays empty; make split_gap smaller, or give split=FILE.json with intervals"
            )
    return {split: tuple(sorted(blocks[split], key=lambda block: (block.record, block.start))) for split in SPLITS}


def _num_cycles(length: int, fractions: Mapping[Split, float], gap: int) -> int:
    """As many cycles as leave every block at least as long as a gap, MOST_CYCLES at most; 0: do not cut."""
    smallest_share = min(fractions["train"] / 2, fractions["val"], fractions["test"])
    for cycles in range(MOST_CYCLES, 0, -1):
        if (length // cycles - 4 * gap) * smallest_share >= max(gap, 1):
            return cycles
    return 0


def _cut_cycle(
    blocks: dict[Split, list[Block]], record: int, start: int, stop: int, fractions: Mapping[Split, float], gap: int
) -> None:
    usable = stop - start - 4 * gap
    shares: tuple[tuple[Split, float], ...] = (
        ("train", fractions["train"] / 2),
        ("val", fractions["val"]),
        ("train", fractions["train"] / 2),
        ("test", fractions["test"]),
    )
    for split, share in shares:
        size = int(usable * share)
        blocks[split].append(Block(record, start, start + size))
        start += size + gap


def _share_out(
    blocks: dict[Split, list[Block]],
    records: Sequence[int],
    lengths: Sequence[int],
    circular: Sequence[bool],
    fractions: Mapping[Split, float],
) -> None:
    lacking = {split: fraction * sum(lengths[record] for record in records) for split, fraction in fractions.items()}
    for record in records:
        neediest = max(SPLITS, key=lambda split: lacking[split])
        blocks[neediest].append(Block(record, 0, lengths[record], circular=circular[record]))
        lacking[neediest] -= lengths[record]
