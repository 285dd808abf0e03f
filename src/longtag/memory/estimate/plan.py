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
from longtag.memory.estimate.choices import Around, Costs, count_costs, ways_to_run_a_block
from longtag.memory.estimate.cost import Cost
from longtag.memory.estimate.count import EMBEDDING, Counted
from longtag.memory.estimate.estimate import estimate
from longtag.memory.estimate.ledger import Level, Phase
from longtag.memory.estimate.subject import Subject

GIB = 2**30
SAFE = 0.97
"""Share of the budget that is planned with: estimates are off by a few per cent."""


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
    plans = best_plans(costs)
    fitting = [found for found in plans if found.peak <= SAFE * budget]
    if fitting:
        fastest = min(fitting, key=lambda found: (found.seconds, found.peak))
        return replace(_in_runs(costs, fastest, budget), budget=budget)
    if subject.levers.offload and (offloaded := _offloaded(subject, budget)):
        return offloaded
    leanest = min(plans, key=lambda found: found.peak)
    wide = subject.levers.residual == "float32" and subject.autocast_dtype is not None
    shorter = _shorter(subject, costs, leanest, budget)
    raise UsageError(
        f"memory.budget_gib={budget / GIB:.4g}: the leanest plan for tokens={subject.tokens} needs "
        f"{leanest.peak / SAFE / GIB:.3g} GiB; give more"
        + (f", or tokens={shorter}" if shorter > 0 else "")
        + (", or memory.residual=bfloat16" if wide else "")
    )


def planned(subject: Subject, budget: int) -> tuple[Subject, Plan | None]:
    """The subject with its levers chosen, if they ask for a choice. budget: bytes, where the levers name none."""
    if subject.levers.checkpoint != "auto":
        return subject, None
    if subject.levers.budget_gib is not None:
        budget = round(subject.levers.budget_gib * GIB)
    chosen = plan(subject, budget)
    different = set(chosen.blocks) != {chosen.levers}
    return replace(subject, levers=chosen.levers, levers_of_blocks=chosen.blocks if different else None), chosen


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


def _offloaded(subject: Subject, budget: int) -> Plan | None:
    """All blocks recomputed, and what they keep in host memory: the first and fastest way that fits.

    For all blocks together, since what waits on the host depends on the blocks before and behind.
    """
    for way in ways_to_run_a_block(subject.levers):
        if way.checkpoint == "blocks":
            levers = replace(way, offload=True)
            found = estimate(replace(subject, levers=levers))
            if found.peak <= SAFE * budget:
                return Plan(levers, (levers,) * subject.num_layers, found.peak, found.cost.seconds, budget)
    return None


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


def _shorter(subject: Subject, costs: Costs, leanest: Plan, budget: int) -> int:
    """A length that should fit: what is there all the time stays, the rest is in proportion to the length."""
    fixed = costs.weights_and_states
    return max(0, int(subject.tokens * (SAFE * budget - fixed) / (leanest.peak - fixed)))


def _in_words(levers: Levers) -> str:
    words = {"none": "kept", "selective": "kept in part", "blocks": "recomputed"}[levers.checkpoint]
    tiles = "" if levers.tile_tokens is None else f" in tiles of {levers.tile_tokens}"
    heads = "" if levers.tile_heads is None else f", {levers.tile_heads} heads at a time"
    return words + tiles + heads + (", in host memory" if levers.offload else "")
