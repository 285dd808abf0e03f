"""The ways in which blocks, and what is around them, can be run, each counted once: what a plan chooses from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from longtag.memory import Levers
from longtag.memory.estimate.compose import FEW, blocks_of, count_costed
from longtag.memory.estimate.count import Counted, Standing, count_standing
from longtag.memory.estimate.estimate import WORKSPACE
from longtag.memory.estimate.ledger import Phase
from longtag.memory.estimate.subject import Subject


class Kind(NamedTuple):
    """One way to run a block: forward and backward of it as the first one, in the middle, and as the last one.

    keeps_input: whether what enters the block is kept for backward.
    """

    levers: Levers
    forward: tuple[Phase, ...]
    backward: tuple[Phase, ...]
    keeps_input: bool

    def at(self, number: int, num_blocks: int) -> tuple[Phase, Phase]:
        place = 0 if number == 0 else len(self.forward) - 1 if number == num_blocks - 1 else len(self.forward) // 2
        return self.forward[place], self.backward[len(self.backward) - 1 - place]


class Around(NamedTuple):
    """One way to run what is around the blocks: a step with these levers, of which the phases outside of blocks count.

    keeps_input: whether it holds for first blocks that keep their input, or for those that do not; None for all. The
                 caller of the blocks holds it until head and loss begin, so that it is there or let go.
    """

    levers: Levers
    counted: Counted
    keeps_input: bool | None

    def suits(self, first: Kind) -> bool:
        return self.keeps_input in (None, first.keeps_input)


@dataclass(frozen=True)
class Costs:
    """All that a choice depends on: the ways to run a block, and those to run what is around the blocks.

    gradients: bytes of all gradients that are there in forward; in_backward: that are there all through backward.
    weights_and_states: bytes of these.
    constant:  bytes that are there all the time, these among them.
    least:     bytes that the optimizer's step needs at least, beside the constant ones.
    """

    kinds: Sequence[Kind]
    around: Sequence[Around]
    num_blocks: int
    gradients: int
    in_backward: int
    weights_and_states: int
    constant: int
    least: int


def count_costs(subject: Subject) -> Costs:
    """Count each way to run a block, and head and loss with and without tiles."""
    standing = count_standing(replace(subject, levers=_plain(subject.levers)))
    few = min(FEW, subject.num_layers)
    kinds, counts, plain = [], {}, _plain(subject.levers)
    for levers in ways_to_run_a_block(subject.levers):
        counts[levers] = counted = count_costed(replace(subject, levers=levers), few)
        blocks = blocks_of(counted, few)
        kinds.append(Kind(levers, blocks.forward, blocks.backward, keeps_input=levers != plain))
    around = [Around(plain, counts[plain], False), Around(plain, counts[replace(plain, checkpoint="blocks")], True)]
    if subject.levers.tile_tokens is not None:
        tiled = replace(plain, tile_tokens=subject.levers.tile_tokens)
        around.append(Around(tiled, counts[tiled], None))
    return _with_standing(subject, standing, kinds, around, max(each.batch + each.lists for each in counts.values()))


def ways_to_run_a_block(levers: Levers) -> list[Levers]:
    """Tiles, and groups of heads, of the size that is given, only where they save what nothing else saves."""
    plain = _plain(levers)
    ways = [replace(plain, checkpoint=checkpoint) for checkpoint in ("none", "selective", "blocks")]
    if levers.tile_tokens is not None:
        ways += [replace(way, tile_tokens=levers.tile_tokens) for way in ways]
    if levers.tile_heads is not None:
        ways.append(replace(ways[-1], tile_heads=levers.tile_heads))
    return ways


def _with_standing(
    subject: Subject,
    standing: Standing,
    kinds: list[Kind],
    around: list[Around],
    batch_and_lists: int,
) -> Costs:
    gradients = 0 if subject.optimization.in_backward else sum(standing.gradients.values())
    workspace = WORKSPACE if subject.device_type == "cuda" else 0
    weights_and_states = sum(standing.weights.values()) + sum(standing.optimizer_states.values())
    return Costs(
        kinds=kinds,
        around=around,
        num_blocks=subject.num_layers,
        gradients=gradients if subject.accumulates else 0,
        in_backward=gradients if subject.accumulates else 0,
        weights_and_states=weights_and_states,
        constant=weights_and_states + batch_and_lists + workspace,
        least=gradients + standing.optimizer_step,
    )


def _plain(levers: Levers) -> Levers:
    return replace(levers, checkpoint="none", budget_gib=None, tile_tokens=None, tile_heads=None, offload=False)
