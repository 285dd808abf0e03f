"""Which blocks to keep and which to recompute: the fastest choice that fits, for `memory.checkpoint=auto`.

Checkmate (Jain et al. 2020, arXiv:1910.02653) asks for the tensors of a network to keep such that the least is computed
twice, and answers with an integer program over single operators. Blocks are alike, and there are few sensible ways to
run one, so that here the best choice is found exactly, block by block from the last to the first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, permutations
from typing import NamedTuple

from longtag.errors import UsageError
from longtag.memory import Levers
from longtag.memory.estimate.compose import FEW, blocks_of, count_costed
from longtag.memory.estimate.cost import Cost
from longtag.memory.estimate.count import EMBEDDING, Counted, Standing, count_standing
from longtag.memory.estimate.estimate import WORKSPACE, estimate
from longtag.memory.estimate.ledger import Level, Phase
from longtag.memory.estimate.subject import Subject

GIB = 2**30
SAFE = 0.97
"""Share of the budget that is planned with: estimates are off by a few per cent."""


HOST_BYTES_PER_SECOND = 50e9
"""Copies between an H100 and pinned memory of its host."""


@dataclass(frozen=True)
class Plan:
    """A choice.

    levers:  of what is around the blocks: head, loss, last norm.
    blocks:  the levers of each block.
    budget:  bytes.
    peak:    bytes that the step is estimated to need.
    seconds: what it is estimated to take, on an H100.
    """

    levers: Levers
    blocks: tuple[Levers, ...]
    peak: int
    seconds: float
    budget: int = 0

    def describe(self) -> str:
        """One line, such as "blocks 0-6 recomputed, 7-11 kept; 17.3 of 20 GiB"."""
        runs, number = [], 0
        for levers, alike in groupby(self.blocks):
            first, number = number, number + len(list(alike))
            runs.append(
                f"{first}-{number - 1} {_in_words(levers)}" if number - first > 1 else f"{first} {_in_words(levers)}"
            )
        around = "" if self.levers.tile_tokens is None else f"; head in tiles of {self.levers.tile_tokens}"
        return f"blocks {', '.join(runs)}{around}; {self.peak / GIB:.3g} of {self.budget / GIB:.3g} GiB"


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


class _State(NamedTuple):
    """The blocks from one on, seen from where its forward begins.

    need: bytes beyond those alive there; left: of these, what is still there when their backward has ended.
    """

    seconds: float
    need: int
    left: int
    blocks: tuple[int, ...]


def plan(subject: Subject, budget: int) -> Plan:
    """The fastest plan for a subject whose levers ask for one.

    budget: bytes.

    Raises UsageError, which says what the leanest plan needs, if nothing fits.
    """
    costs = count_costs(subject)
    plans = best_plans(costs) + (_offloaded(subject) if subject.levers.offload else [])
    fitting = [found for found in plans if found.peak <= SAFE * budget]
    if fitting:
        fastest = min(fitting, key=lambda found: (found.seconds, found.peak))
        return replace(fastest if fastest.levers.offload else _in_runs(costs, fastest, budget), budget=budget)
    leanest = min(plans, key=lambda found: found.peak)
    wide = subject.levers.residual == "float32" and subject.autocast_dtype is not None
    raise UsageError(
        f"memory.budget_gib={budget / GIB:.4g}: the leanest plan for tokens={subject.tokens} needs "
        f"{leanest.peak / SAFE / GIB:.3g} GiB; give more, or tokens={_shorter(subject, costs, leanest, budget)}"
        + (", or memory.residual=bfloat16" if wide else "")
    )


def planned(subject: Subject, budget: int) -> tuple[Subject, Plan | None]:
    """The subject with its levers chosen, if they ask for a choice. budget: bytes, where the levers name none."""
    if subject.levers.checkpoint != "auto":
        return subject, None
    if subject.levers.budget_gib is not None:
        budget = round(subject.levers.budget_gib * GIB)
    chosen = plan(subject, budget)
    return replace(subject, levers=chosen.levers, levers_of_blocks=chosen.blocks), chosen


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


def best_plans(costs: Costs) -> list[Plan]:
    """Of all choices for all blocks, those than which none is both faster and smaller."""
    found = []
    for around in costs.around:
        outside = _Outside.of(around.counted)
        states = [_State(outside.seconds, *outside.head(costs), ())]
        for number in reversed(range(costs.num_blocks)):
            phases = [
                (which, *kind.at(number, costs.num_blocks))
                for which, kind in enumerate(costs.kinds)
                if number > 0 or around.suits(kind)
            ]
            states = _without_worse(
                _before(forward, backward, state, costs, which)
                for state in states
                for which, forward, backward in phases
            )
        for state in states:
            blocks = tuple(costs.kinds[which].levers for which in state.blocks)
            found.append(Plan(around.levers, blocks, peak_of(costs, outside.embedding, state), state.seconds))
    return found


def _offloaded(subject: Subject) -> list[Plan]:
    """All blocks recomputed, and what they keep in host memory: stages that follow one another are not apart."""
    plans = []
    for levers in ways_to_run_a_block(subject.levers):
        if levers.checkpoint == "blocks":
            levers = replace(levers, offload=True)
            found = estimate(replace(subject, levers=levers))
            # There and back, beside the computation.
            seconds = max(found.cost.seconds, 2 * found.host / HOST_BYTES_PER_SECOND)
            plans.append(Plan(levers, (levers,) * subject.num_layers, found.peak, seconds))
    return plans


def _in_runs(costs: Costs, chosen: Plan, budget: int) -> Plan:
    """The same ways to run blocks, each of them in a row, if that fits as well: the order costs no time."""
    number = {kind.levers: which for which, kind in enumerate(costs.kinds)}
    each = [number[levers] for levers in chosen.blocks]
    candidates = [
        plan_of(costs, around, sorted(each, key=order.index))
        for order in permutations(set(each))
        for around in costs.around
        if around.levers == chosen.levers and around.suits(costs.kinds[order[0]])
    ]
    smallest = min(candidates, key=lambda plan: plan.peak)
    return smallest if smallest.peak <= SAFE * budget else chosen


def plan_of(costs: Costs, around: Around, blocks: Sequence[int]) -> Plan:
    """The plan that runs each block as it is told, by numbers of `costs.kinds`, of which the first suits `around`."""
    outside = _Outside.of(around.counted)
    state = _State(outside.seconds, *outside.head(costs), ())
    for number in reversed(range(costs.num_blocks)):
        forward, backward = costs.kinds[blocks[number]].at(number, costs.num_blocks)
        state = _before(forward, backward, state, costs, blocks[number])
    chosen = tuple(costs.kinds[which].levers for which in state.blocks)
    return Plan(around.levers, chosen, peak_of(costs, outside.embedding, state), state.seconds)


def peak_of(costs: Costs, embedding: tuple[Phase, Phase], state: _State) -> int:
    """Bytes on the device at the peak of the whole step."""
    whole = _before(*embedding, state, costs, 0)
    return costs.constant + max(whole.need, costs.least)


def _before(forward: Phase, backward: Phase, state: _State, costs: Costs, which: int) -> _State:
    """The state one block earlier."""
    kept = forward.end.total
    need = max(
        forward.peak.total + costs.gradients,
        kept + state.need,
        kept + state.left + backward.peak.total + costs.in_backward,
    )
    seconds = state.seconds + forward.cost.seconds + backward.cost.seconds
    return _State(seconds, need, kept + state.left + backward.end.total, (which, *state.blocks))


def _without_worse(states: Iterable[_State]) -> list[_State]:
    """Those that no other one beats in time, need and what is left."""
    best: list[_State] = []
    least: dict[int, int] = {}
    for state in sorted(states):
        if state.need < least.get(state.left, state.need + 1):
            least[state.left] = state.need
            best.append(state)
    return best


class _Outside(NamedTuple):
    embedding: tuple[Phase, Phase]
    forward: Phase
    backward: Phase

    @classmethod
    def of(cls, counted: Counted) -> "_Outside":
        nothing = counted.forward[0]._replace(peak=Level(), end=Level(), cost=Cost())
        last = counted.backward[-1]
        return cls(
            (counted.forward[0], last if last.layer == EMBEDDING else nothing), counted.forward[-1], counted.backward[0]
        )

    @property
    def seconds(self) -> float:
        return sum(phase.cost.seconds for phase in (*self.embedding, self.forward, self.backward))

    def head(self, costs: Costs) -> tuple[int, int]:
        """Need and left of head and loss."""
        end = self.forward.end.total
        need = max(self.forward.peak.total + costs.gradients, end + self.backward.peak.total + costs.in_backward)
        return need, end + self.backward.end.total


def _with_standing(
    subject: Subject,
    standing: Standing,
    kinds: list[Kind],
    around: list[Around],
    batch_and_lists: int,
) -> Costs:
    gradients = 0 if getattr(subject.optimization, "in_backward", False) else sum(standing.gradients.values())
    workspace = WORKSPACE if subject.device_type == "cuda" else 0
    weights_and_states = sum(standing.weights.values()) + sum(standing.optimizer_states.values())
    return Costs(
        kinds=kinds,
        around=around,
        num_blocks=subject.num_layers,
        gradients=gradients,
        in_backward=gradients if subject.accumulates else 0,
        weights_and_states=weights_and_states,
        constant=weights_and_states + batch_and_lists + workspace,
        least=gradients + standing.optimizer_step,
    )


def _shorter(subject: Subject, costs: Costs, leanest: Plan, budget: int) -> int:
    """A length that should fit: what is there all the time stays, the rest is in proportion to the length."""
    fixed = costs.weights_and_states
    return max(0, int(subject.tokens * (SAFE * budget - fixed) / (leanest.peak - fixed)))


def _plain(levers: Levers) -> Levers:
    return replace(levers, checkpoint="none", budget_gib=None, tile_tokens=None, tile_heads=None, offload=False)


def _in_words(levers: Levers) -> str:
    words = {"none": "kept", "selective": "kept in part", "blocks": "recomputed"}[levers.checkpoint]
    tiles = "" if levers.tile_tokens is None else f" in tiles of {levers.tile_tokens}"
    heads = "" if levers.tile_heads is None else f", {levers.tile_heads} heads at a time"
    return words + tiles + heads + (", in host memory" if levers.offload else "")
