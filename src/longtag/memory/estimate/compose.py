"""A step of many blocks from a step of few, since all blocks of a kind do the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from longtag.memory import Levers
from longtag.memory.estimate.count import HEAD, Counted, block_name, count_step
from longtag.memory.estimate.ledger import Phase
from longtag.memory.estimate.subject import Subject
from longtag.memory.even_tiles import MOST_TILES, even_tiles, some_tiles_only

FEW = 3
"""A first, a middle and a last unit: blocks that are recomputed together, or one block."""
FEW_WITH_OFFLOAD = 7
"""The last two stay on the device, and two more are on their way at either end."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of one kind in a row, as phases of single blocks. Those of the middle can be repeated.

    unit: how many blocks are repeated at a time.
    """

    forward: tuple[Phase, ...]
    backward: tuple[Phase, ...]
    unit: int = 1

    def repeated(self, num_blocks: int) -> "Blocks":
        """So many blocks: as many as there are, or a number of units more."""
        middle = (len(self.forward) // self.unit // 2) * self.unit
        times, left = divmod(num_blocks - len(self.forward), self.unit)
        assert times >= 0
        assert left == 0
        return Blocks(
            _with_more(self.forward, middle, self.unit, times),
            _with_more(self.backward, len(self.backward) - middle - self.unit, self.unit, times),
            self.unit,
        )


def few_blocks(levers: Levers, num_layers: int) -> int:
    """The smallest model of the same kinds of blocks, from which one of `num_layers` can be composed."""
    unit = max(1, levers.blocks_recomputed_together)
    units = FEW_WITH_OFFLOAD if levers.offload else FEW
    return min(num_layers, units * unit + num_layers % unit)


def count_composed(subject: Subject, *, costs: bool = True) -> Counted:
    """`count_step` of all blocks, though only a few of them are run.

    costs: whether those of tiles that were left out are counted as well, which takes two more counts.
    """
    different = subject.levers_of_blocks is not None
    few = subject.num_layers if different else few_blocks(subject.levers, subject.num_layers)
    counted = count_costed(subject, few) if costs else count_step(subject, few)
    if different:
        return counted
    blocks = blocks_of(counted, few, unit=max(1, subject.levers.blocks_recomputed_together))
    return joined(counted, [blocks.repeated(subject.num_layers)])


def blocks_of(counted: Counted, num_blocks: int, unit: int = 1) -> Blocks:
    """The phases of the blocks alone."""
    names = {block_name(number) for number in range(num_blocks)}
    return Blocks(
        tuple(phase for phase in counted.forward if phase.layer in names),
        tuple(phase for phase in counted.backward if phase.layer in names),
        unit,
    )


def joined(counted: Counted, runs: Sequence[Blocks]) -> Counted:
    """The same step with these blocks in place of its own, numbered anew."""
    forward = [phase for run in runs for phase in run.forward]
    backward = [phase for run in reversed(runs) for phase in run.backward]
    forward = [phase._replace(layer=block_name(number)) for number, phase in enumerate(forward)]
    backward = [phase._replace(layer=block_name(len(backward) - 1 - number)) for number, phase in enumerate(backward)]
    return replace(counted, forward=_in_place(counted.forward, forward), backward=_in_place(counted.backward, backward))


def _in_place(phases: list[Phase], blocks: list[Phase]) -> list[Phase]:
    numbers = [number for number, phase in enumerate(phases) if phase.layer.startswith("block ")]
    return [*phases[: numbers[0]], *blocks, *phases[numbers[-1] + 1 :]]


def _with_more(phases: tuple[Phase, ...], first: int, unit: int, times: int) -> tuple[Phase, ...]:
    return phases[:first] + phases[first : first + unit] * times + phases[first:]


def count_costed(subject: Subject, num_layers: int) -> Counted:
    """`count_step`, with the costs of all tiles: each tile more costs as much as the one before."""
    counted = count_step(subject, num_layers)
    tile, rows = subject.levers.tile_tokens, subject.tokens * subject.batch_size
    if tile is None:
        return _with_cost_of_head(counted, rows)
    if rows <= MOST_TILES * tile:
        return counted
    try:
        two, three = (
            count_step(replace(subject, tokens=tiles * tile, batch_size=1), num_layers)
            for tiles in (MOST_TILES - 1, MOST_TILES)
        )
    except ValueError:  # a pattern for one length alone
        return counted
    more = rows / tile - (MOST_TILES - 1)

    def extended(phases: list[Phase], of_two: list[Phase], of_three: list[Phase]) -> list[Phase]:
        return [
            phase._replace(cost=less.cost.plus(full.cost.plus(less.cost.times(-1)).times(more)))
            for phase, less, full in zip(phases, of_two, of_three, strict=True)
        ]

    return replace(
        counted,
        forward=extended(counted.forward, two.forward, three.forward),
        backward=extended(counted.backward, two.backward, three.backward),
    )


def _with_cost_of_head(counted: Counted, rows: int) -> Counted:
    """Head and loss go through tiles in any case: they cost in proportion to the tiles, all or those that were run."""
    with some_tiles_only():
        run = sum(tokens.stop - tokens.start for tokens in even_tiles(rows, counted.longest_tile))
    forward = [
        phase._replace(cost=phase.cost.times(rows / run)) if phase.layer == HEAD else phase for phase in counted.forward
    ]
    return replace(counted, forward=forward)
