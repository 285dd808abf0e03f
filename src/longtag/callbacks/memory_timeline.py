"""When memory is recorded and drawn: over a step that was asked for, and when it runs out."""

import contextlib
import pickle
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from longtag.callbacks.averaging import means_of
from longtag.figures.memory_timeline import draw, in_words
from longtag.memory.block_hooks import when_backward_leaves, when_forward_enters_and_leaves
from longtag.memory.peak import has_allocator
from longtag.memory.recording import AllocatorHistory, CountedTensors
from longtag.memory.standing import Standing
from longtag.memory.step_marks import Kind, Part, StepMarks
from longtag.memory.timeline import Curve, build
from longtag.tagger import Tagger
from sparse_attention.pictures.file import write_whole

EVENTS_KEPT = 200_000
"""Of the allocator: more than a step of a hundred blocks has, in some 40 MiB of the host's memory."""


class MemoryTimeline(Callback):
    """Draws allocated memory over one training step, into the run's folder: figures/memory_step_<step>.png.

    On CUDA the curve is the allocator's own trace. It lies beside the figure as figures/memory_step_<step>.pickle for
    the viewer of https://pytorch.org/memory_viz, with the lines of Python that made each tensor. The step waits for the
    device at the borders of blocks, so that their widths are times. Elsewhere tensors are counted operator by operator
    (`CountedTensors`), which slows the step down.

    When memory runs out on CUDA, in training or a validation, the allocator's trace is taken at that moment, before
    anything is freed, and becomes figures/out_of_memory.png and .pickle: the step so far. For this the allocator keeps
    its last events, without lines of Python, in a ring of fixed size, and each block leaves the times at which it
    begins and ends: of the order of 0.1 us for an allocation and 2 us for a block.

    Args:
        step: which step of this run to draw, counted from 1 where the run began or went on; None draws none. The third
            is like all that follow, while the first makes the optimizer states.
        at_out_of_memory: whether to keep the allocator's events for the case that memory runs out.
    """

    def __init__(self, *, step: int | None = None, at_out_of_memory: bool = True) -> None:
        self._step_asked_for = step
        self._at_out_of_memory = at_out_of_memory
        self._hooks: list[RemovableHandle] = []
        self._history: AllocatorHistory | None = None
        self._counted: CountedTensors | None = None
        self._failure: tuple[Curve, dict[str, Any], int] | None = None
        self._recording = False

    def on_train_start(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._device = pl_module.device
        watches_failures = self._at_out_of_memory and has_allocator(self._device)
        if not trainer.is_global_zero or not (self._step_asked_for or watches_failures):
            return
        self._first_step, self._step, self._marks = trainer.global_step, -1, StepMarks()
        self._standing = Standing(pl_module, trainer.optimizers, self._device, means_of(trainer))
        blocks, head = pl_module.model.encoder.blocks, pl_module.model.head
        self._parts: dict[Part, torch.nn.Module] = {**dict(enumerate(blocks)), "head": head}
        self._hooks = [
            *when_forward_enters_and_leaves(blocks, partial(self._mark, "enter"), partial(self._mark, "leave")),
            *when_backward_leaves(blocks, partial(self._mark, "done")),
            *when_backward_leaves([head], lambda _: self._mark("done", "head")),
        ]
        if watches_failures:
            self._history = AllocatorHistory(self._device, max_entries=EVENTS_KEPT, stacks=False)
            _when_out_of_memory(weakref.WeakMethod(self._note_failure))

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Tagger, batch: Any, batch_idx: int) -> None:
        if self._hooks and trainer.global_step != self._step:  # not a further batch of an accumulated step
            self._step = trainer.global_step
            self._gradients_before = self._standing.gradients()
            self._marks = StepMarks()
            if self._step - self._first_step + 1 == self._step_asked_for:
                self._record(pl_module, trainer.optimizers, batch)
        self._mark("forward")

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: Tagger, optimizer: Optimizer) -> None:
        self._mark("zero_grad")

    def on_before_backward(self, trainer: L.Trainer, pl_module: Tagger, loss: Tensor) -> None:
        self._mark("backward")

    def on_after_backward(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._mark("optimizer")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Tagger, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._mark("end")
        if self._recording and trainer.global_step != self._step:
            curve, snapshot = self._stop_recording()
            tokens = batch["labels"].numel() * trainer.accumulate_grad_batches
            title = f"Step {trainer.global_step}, {tokens:,} tokens on {self._device.type.upper()}"
            self._draw(trainer, f"memory_step_{trainer.global_step}", curve, snapshot, title)

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: Tagger, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self._recording:
            self._marks = StepMarks()
            self._mark("forward")

    def on_exception(self, trainer: L.Trainer, pl_module: Tagger, exception: BaseException) -> None:
        if self._counted is not None:
            curve, _ = self._stop_recording()
            if "can't allocate memory" in str(exception):
                self._draw_failure(trainer, curve, None, "Out of memory")
        if self._failure is not None and isinstance(exception, torch.OutOfMemoryError):
            curve, snapshot, asked = self._failure
            self._draw_failure(trainer, curve, snapshot, f"Out of memory, {in_words(asked)} more were asked for")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._history is not None:
            self._history.stop()
        self._history = self._failure = None

    def _mark(self, kind: Kind, part: Part | None = None) -> None:
        if self._hooks:
            self._marks.add(kind, part)

    def _record(self, pl_module: Tagger, optimizers: list[Optimizer], batch: Any) -> None:
        self._recording = True
        if has_allocator(self._device):
            self._marks = StepMarks(wait=partial(torch.cuda.synchronize, self._device))
            self._history = AllocatorHistory(self._device, max_entries=EVENTS_KEPT, stacks=True)
        else:
            parameters = list(pl_module.parameters())
            gradients = [each.grad for each in parameters if each.grad is not None]
            states = [list(optimizer.state.values()) for optimizer in optimizers]
            standing = tree_leaves([parameters, list(pl_module.buffers()), gradients, states, batch])
            self._counted = CountedTensors(each for each in standing if isinstance(each, Tensor))

    def _stop_recording(self) -> tuple[Curve, dict[str, Any] | None]:
        self._recording = False
        if self._counted is not None:
            counted, self._counted = self._counted, None
            return counted.stop(), None
        assert self._history is not None
        recorded = self._history.snapshot()
        self._history.stop()
        self._history = None
        if self._at_out_of_memory:
            self._history = AllocatorHistory(self._device, max_entries=EVENTS_KEPT, stacks=False)
        return recorded

    def _note_failure(self, asked: int) -> None:
        if self._history is not None:
            self._failure = (*self._history.snapshot(), asked)

    def _draw_failure(self, trainer: L.Trainer, curve: Curve, snapshot: dict[str, Any] | None, title: str) -> None:
        try:
            self._draw(trainer, "out_of_memory", curve, snapshot, title)
        except Exception as error:  # must not take the place of the failure that it tells of
            print(f"memory over the step could not be drawn: {error}", flush=True)

    def _draw(self, trainer: L.Trainer, name: str, curve: Curve, snapshot: dict[str, Any] | None, title: str) -> None:
        figures = Path(trainer.default_root_dir) / "figures"
        figures.mkdir(exist_ok=True)
        timeline = build(
            curve,
            self._marks,
            weights=self._standing.weights,
            optimizer_states=self._standing.optimizer_states(),
            gradients_before=self._gradients_before,
            gradients_of_parts={
                part: self._standing.gradients(module.parameters()) for part, module in self._parts.items()
            },
            gradients_after=self._standing.gradients(),
        )
        draw(timeline, title, figures / f"{name}.png")
        if snapshot is not None:
            write_whole(figures / f"{name}.pickle", pickle.dumps(snapshot))
        print(f"memory over the step: {figures / name}.png", flush=True)


def _when_out_of_memory(method: weakref.WeakMethod) -> None:
    """Call a method, as long as its object lives, with the bytes that could not be had. Torch forgets no observer."""

    def observe(device: int, asked: int, device_total: int, device_free: int) -> None:
        if (call := method()) is not None:
            # Whatever goes wrong here must not take the place of the failure itself.
            with contextlib.suppress(Exception):
                call(asked)

    torch._C._cuda_attach_out_of_memory_observer(observe)  # pyright: ignore[reportAttributeAccessIssue]
