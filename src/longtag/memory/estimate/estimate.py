"""What a training step needs: the peak of its memory, what it is made of, and what the step costs."""

from dataclasses import dataclass, field, replace

from longtag.memory.estimate.compose import count_composed
from longtag.memory.estimate.cost import Cost
from longtag.memory.estimate.count import OPTIMIZER, Counted, Standing, count_standing
from longtag.memory.estimate.ledger import Level
from longtag.memory.estimate.subject import Subject

WORKSPACE = 2 * 32 * 2**20
"""What cuBLAS takes on a GPU of Hopper's kind: 32 MiB for the thread of forward, and as much for that of backward."""


@dataclass(frozen=True)
class Layer:
    """Bytes of one layer. activations: left by its forward for its backward. passing: needed besides while it runs."""

    name: str
    weights: int
    gradients: int
    optimizer_states: int
    activations: int
    passing: int


@dataclass(frozen=True)
class Estimate:
    """Bytes on the device at the peak of a step, in the categories of the logged keys `memory/..._gib`.

    Their sum is the peak. `temporary` are tensors of the part that runs just then, and what is there all the time: the
    batch, the lists of the layout, workspaces of libraries.

    when:   the part of the step in which the peak lies.
    batch, lists, workspace: bytes, parts of `temporary`.
    kept:   activations at the end of forward, on the device; host: those that wait on the host.
    layers: what each layer needs, in order.
    cost:   of the whole step, without the optimizer.
    """

    weights: int
    gradients: int
    optimizer_states: int
    activations: int
    temporary: int
    when: str
    batch: int
    lists: int
    workspace: int
    kept: int
    layers: tuple[Layer, ...] = field(repr=False)
    cost: Cost = field(repr=False)
    host: int = 0

    @property
    def peak(self) -> int:
        return self.weights + self.gradients + self.optimizer_states + self.activations + self.temporary


def estimate(subject: Subject, standing: Standing | None = None) -> Estimate:
    """What one step of this subject needs.

    standing: of a subject that differs in levers or in its number of tokens alone, if it was counted before.
    """
    standing = standing or count_standing(subject)
    found = summed(subject, count_composed(subject), standing)
    if not subject.levers.offload:
        return found
    staying = replace(subject, levers=replace(subject.levers, offload=False))
    return replace(found, host=summed(staying, count_composed(staying, costs=False), standing).kept - found.kept)


def summed(subject: Subject, counted: Counted, standing: Standing) -> Estimate:
    """Walk through the phases of a step and find its peak."""
    gradients = 0 if subject.optimization.in_backward else sum(standing.gradients.values())
    peak, when = Level(), ""
    now = Level(gradients=gradients if subject.accumulates else 0)
    for phase in counted.forward:
        here, now = now.plus(phase.peak), now.plus(phase.end)
        if here.total > peak.total:
            # Most of what is alive at the end of the phase will be kept.
            kept = min(now.temporary, here.temporary)
            peak, when = Level(here.gradients, kept, here.temporary - kept), f"forward of {phase.layer}"
    kept = now.temporary
    now = Level(gradients if subject.accumulates else 0, kept, 0)
    for phase in counted.backward:
        here, now = now.plus(phase.peak), now.plus(phase.end)
        if here.total > peak.total:
            peak, when = here, f"backward of {phase.layer}"
    if gradients + standing.optimizer_step > peak.total:
        peak, when = Level(gradients, 0, standing.optimizer_step), OPTIMIZER
    workspace = WORKSPACE if subject.device_type == "cuda" else 0
    return Estimate(
        weights=sum(standing.weights.values()),
        gradients=peak.gradients,
        optimizer_states=sum(standing.optimizer_states.values()),
        activations=peak.activations,
        temporary=peak.temporary + counted.batch + counted.lists + workspace,
        when=when,
        batch=counted.batch,
        lists=counted.lists,
        workspace=workspace,
        kept=kept,
        layers=_layers(counted, standing, gradients > 0),
        cost=_total(counted),
    )


def _layers(counted: Counted, standing: Standing, keeps_gradients: bool) -> tuple[Layer, ...]:
    kept, passing = dict.fromkeys(standing.weights, 0), dict.fromkeys(standing.weights, 0)
    for phase in counted.forward:
        kept[phase.layer] += phase.end.temporary
    for phase in (*counted.forward, *counted.backward):
        passing[phase.layer] = max(passing[phase.layer], phase.passing)
    return tuple(
        Layer(
            name=name,
            weights=standing.weights[name],
            gradients=standing.gradients[name] if keeps_gradients else 0,
            optimizer_states=standing.optimizer_states[name],
            # Head and loss let go what the last block has left.
            activations=max(0, kept[name]),
            passing=passing[name],
        )
        for name in standing.weights
    )


def _total(counted: Counted) -> Cost:
    total = Cost()
    for phase in (*counted.forward, *counted.backward):
        total = total.plus(phase.cost)
    return total
