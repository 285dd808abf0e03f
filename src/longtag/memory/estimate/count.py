"""One training step over tensors without data, its memory booked layer by layer."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from longtag.loss import mean
from longtag.memory import Levers
from longtag.memory.estimate.ledger import ALLOCATION_UNIT, Ledger, Phase
from longtag.memory.estimate.subject import Subject
from longtag.memory.estimate.without_data import implementation_for_shapes, stand_in, without_data
from longtag.memory.head_groups import layouts_of_groups
from longtag.memory.tiled_loss import cost_of_tokens, longest_tile
from longtag.model import TokenClassifier
from sparse_attention import InParts, Layout

EMBEDDING, HEAD, OPTIMIZER = "embedding", "head and loss", "optimizer"


def block_name(number: int) -> str:
    return f"block {number}"


@dataclass(frozen=True)
class Counted:
    """Phases of one step, in the order in which they happen, and what is there all the time.

    batch, lists: bytes of the batch and of the layout with what backward derives from it.
    longest_tile: tokens of a tile of head and loss where nobody asks for fewer.
    """

    forward: list[Phase]
    backward: list[Phase]
    batch: int
    lists: int
    longest_tile: int


@dataclass(frozen=True)
class Standing:
    """Bytes of each layer, by its name, that stand from step to step, and what the optimizer's step takes besides."""

    weights: dict[str, int]
    gradients: dict[str, int]
    optimizer_states: dict[str, int]
    optimizer_step: int


def count_step(subject: Subject, num_layers: int) -> Counted:
    """Forward, loss and backward of a step that is not the first, with so many blocks."""
    layout = _built(subject)
    with without_data(subject.device_type):
        given = stand_in(layout)
        model = _model(subject, given, num_layers)
        optimizer = _optimizer(subject, model)
        _make_states(optimizer, model)
        inputs, labels = subject.new_inputs(), torch.zeros(subject.batch_size, subject.tokens, dtype=torch.int64)
        batch = _rounded(inputs) + _rounded(labels)
        with Ledger() as ledger:
            forward, backward = _step(subject, model, optimizer, inputs, labels, ledger)
        of_blocks = subject.levers_of_blocks or [subject.levers]
        groups = {levers.tile_heads for levers in of_blocks if levers.tile_heads is not None}
        lists = _bytes_of_lists(given, model.num_heads, groups)
    return Counted(forward, backward, batch, lists, longest_tile(model.head))


def count_standing(subject: Subject) -> Standing:
    """Weights, gradients and optimizer states of the whole model, and the optimizer's step."""
    layout = subject.pattern(subject.tokens)
    with without_data(subject.device_type):
        model = _model(subject, stand_in(layout), subject.num_layers)
        optimizer = _optimizer(subject, model)
        _make_states(optimizer, model)
        layers = {name: list(parameters) for name, parameters in _parameters_by_layer(model)}
        buffers = sum(map(_rounded, model.buffers())) + sum(map(_rounded, subject.loss.buffers()))
        weights = {name: sum(map(_rounded, parameters)) for name, parameters in layers.items()}
        weights[HEAD] += buffers
        if subject.averages:
            weights = {name: 2 * of_layer for name, of_layer in weights.items()}
        states = {
            name: sum(_bytes_of_state(optimizer.state[parameter]) for parameter in parameters)
            for name, parameters in layers.items()
        }
        return Standing(
            weights=weights,
            gradients={name: sum(map(_rounded, parameters)) for name, parameters in layers.items()},
            optimizer_states=states,
            optimizer_step=_count_optimizer_step(subject, model, optimizer),
        )


def _built(subject: Subject) -> Layout:
    """The layout, with all that depends on its data, which the rest of the count does without."""
    layout = subject.pattern(subject.tokens)
    for part in layout.parts if isinstance(layout, InParts) else (layout,):
        if stand_in(part) is part:
            part.build()
    return layout


def _model(subject: Subject, layout: Layout, num_layers: int) -> TokenClassifier:
    implementation = implementation_for_shapes(subject.implementation, subject.device_type, layout)
    default = torch.get_default_dtype()
    # Tensors without data cannot be converted in place afterwards.
    torch.set_default_dtype(subject.weight_dtype)
    try:
        return subject.build_model(
            pattern=lambda num_tokens: layout,
            implementation=implementation,
            levers=_on(subject.device_type, subject.levers),
            levers_of_blocks=subject.levers_of_blocks
            and [_on(subject.device_type, one) for one in subject.levers_of_blocks],
            num_layers=num_layers,
        )
    finally:
        torch.set_default_dtype(default)


def _on(device_type: str, levers: Levers) -> Levers:
    """Nothing is moved to the host where tensors lie there."""
    return replace(levers, offload=False) if device_type == "cpu" else levers


def _optimizer(subject: Subject, model: nn.Module) -> torch.optim.Optimizer:
    optimizer = subject.optimization.configure(model, max_steps=1)["optimizer"]
    for group in optimizer.param_groups:
        if subject.device_type == "cuda" and "foreach" in group and not group.get("fused"):
            group["foreach"] = True  # torch's own choice there
    return optimizer


def _make_states(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """As the first step does it, whether inside of backward or after it."""

    def backward() -> float:
        torch.stack([parameter.float().sum() for parameter in model.parameters()]).sum().backward()
        return 0.0

    optimizer.step(backward)
    optimizer.zero_grad()


def _step(
    subject: Subject,
    model: TokenClassifier,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    ledger: Ledger,
) -> tuple[list[Phase], list[Phase]]:
    """As `Tagger` is trained: gradients of the step before are gone, those of batches before are there."""
    phases: list[list[Phase]] = []
    hooks = _follow(model, ledger, phases)
    for parameter in model.parameters() if subject.accumulates else ():
        parameter.grad = torch.empty_like(parameter)
        ledger.book_gradient(parameter.grad)

    def closure() -> float:
        ledger.begin(EMBEDDING)
        narrow = subject.autocast_dtype
        # Lightning keeps no casts of weights either.
        with torch.autocast("cpu", dtype=narrow, enabled=narrow is not None, cache_enabled=False):
            cost = cost_of_tokens(
                model.head, subject.loss, model.encode(inputs), labels, tile=subject.levers.tile_tokens
            )
            loss = mean(cost, subject.loss.weight(labels))
            del cost
        phases.append(ledger.end())
        ledger.keep_for_backward()
        ledger.begin(HEAD)
        loss.backward()
        phases.append(ledger.end())
        return 0.0

    if subject.optimization.in_backward:
        optimizer.step(closure)
    else:
        closure()
    for hook in hooks:
        hook.remove()
    forward, backward = phases
    return forward, backward


def _follow(model: TokenClassifier, ledger: Ledger, phases: list[list[Phase]]) -> list[Any]:
    """Begin a phase where forward, or backward, comes to another layer. What is run again in backward begins none."""
    hooks = []

    def when_gradient_arrives(tensor: Tensor, layer: str) -> None:
        if tensor.requires_grad:
            tensor.register_hook(lambda _: ledger.begin(layer))

    def enter(number: int, block: nn.Module, args: tuple[Any, ...]) -> None:
        if not phases:
            if number == 0:
                when_gradient_arrives(args[0], EMBEDDING)
            ledger.begin(block_name(number))

    def leave(number: int, block: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        if not phases:
            when_gradient_arrives(out, block_name(number))

    def end_blocks(*_: Any) -> None:
        # Where the last norm is tiled, it is called for each tile.
        if not phases and ledger.running != HEAD:
            ledger.begin(HEAD)

    for number, block in enumerate(model.encoder.blocks):
        hooks.append(block.register_forward_pre_hook(partial(enter, number)))
        hooks.append(block.register_forward_hook(partial(leave, number)))
    hooks.append(model.encoder.final_norm.register_forward_pre_hook(end_blocks))
    for parameter in model.parameters():
        hooks.append(parameter.register_post_accumulate_grad_hook(partial(_book, ledger)))
    return hooks


def _book(ledger: Ledger, parameter: Tensor) -> None:
    if parameter.grad is not None:
        ledger.book_gradient(parameter.grad)


def _count_optimizer_step(subject: Subject, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes beyond the gradients that clipping and the step take while they run."""
    if subject.optimization.in_backward:
        return 0
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    with Ledger() as ledger:
        ledger.begin(OPTIMIZER)
        if subject.clips:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=subject.device_type == "cuda")
        optimizer.step()
        (phase,) = ledger.end()
    return phase.peak.total


def _parameters_by_layer(model: TokenClassifier) -> Iterator[tuple[str, Iterable[nn.Parameter]]]:
    yield EMBEDDING, model.embedding.parameters()
    for number, block in enumerate(model.encoder.blocks):
        yield block_name(number), block.parameters()
    yield HEAD, itertools.chain(model.encoder.final_norm.parameters(), model.head.parameters())


def _bytes_of_state(state: dict[str, Any]) -> int:
    # Counters of steps are kept on the host.
    return sum(_rounded(value) for value in state.values() if isinstance(value, Tensor) and value.dim())


def _bytes_of_lists(layout: Layout, num_heads: int, groups: Iterable[int]) -> int:
    """Of a layout, of what it derives for backward, and of the parts that groups of heads have of their own."""
    parts = [layout]
    for group in groups:
        parts += [part for part in layouts_of_groups(layout, num_heads, group) if part is not layout]
    storages = {}
    for tensor in itertools.chain.from_iterable(map(_tensors_in, parts)):
        storages[tensor.untyped_storage()._cdata] = _rounded(tensor)
    return sum(storages.values())


def _tensors_in(thing: Any) -> Iterator[Tensor]:
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from _tensors_in(item)
    elif type(thing).__module__.startswith("sparse_attention.layouts"):
        for item in vars(thing).values():
            yield from _tensors_in(item)


def _rounded(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALLOCATION_UNIT) * ALLOCATION_UNIT
