"""Peak memory of every training step, and what it was made of."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from longtag.callbacks.averaging import means_of
from longtag.memory.block_hooks import when_backward_leaves
from longtag.memory.peak import GIB, has_allocator, peak_gib, read_allocator, reset_peak
from longtag.memory.peak_split import Moment, PeakSplit
from longtag.memory.standing import Standing
from longtag.tagger import Tagger


class MemoryMonitor(Callback):
    """Logs the peak of each optimizer step, all of its batches together, and splits it. In GiB, but for the counts.

    On CUDA, `memory/peak_allocated_gib` is what tensors took and `memory/peak_reserved_gib` what the allocator held;
    `memory/weights_gib`, `gradients_gib`, `optimizer_states_gib`, `activations_gib` and `temporary_gib` sum to the
    former: `PeakSplit` says what each is. Read are counters of the host, at both ends of forward and backward and
    after each block of backward. `memory/allocator_retries` counts how often the allocator had to give cached memory
    back within the step to go on, and `memory/allocator_failures` how often that was not enough.

    Elsewhere `memory/peak_rss_gib` is the resident memory of the process. Weights, gradients (as they stand when
    backward ends) and optimizer states are counted; `memory/rest_gib` is what remains of the peak. It holds
    activations, temporary tensors, Python and the libraries together: what the C library keeps of freed memory is
    resident too, so that they cannot be told apart from outside.
    """

    def __init__(self) -> None:
        self._step = -1
        self._split: PeakSplit | None = None
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._device = pl_module.device
        self._standing = Standing(pl_module, trainer.optimizers, self._device, means_of(trainer))
        self._blocks = [list(block.parameters()) for block in pl_module.model.encoder.blocks]
        if has_allocator(self._device):
            self._hooks = when_backward_leaves(pl_module.model.encoder.blocks, self._leave_block)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Tagger, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self._step:  # a further batch of an accumulated step
            return
        self._step = trainer.global_step
        reset_peak(self._device)
        self._gradients, self._states = self._standing.gradients(), self._standing.optimizer_states()
        if has_allocator(self._device):
            self._before = read_allocator(self._device)
            start = Moment(self._before.allocated, self._gradients, self._states)
            self._split = PeakSplit(self._standing.weights, start)

    def on_before_zero_grad(self, trainer: L.Trainer, pl_module: Tagger, optimizer: Optimizer) -> None:
        # Lightning frees the gradients of the step before only after forward.
        self._note()

    def on_before_backward(self, trainer: L.Trainer, pl_module: Tagger, loss: Tensor) -> None:
        self._gradients = self._standing.gradients()
        # Backward then adds to what the batches before have left, and makes no new ones.
        self._accumulates = self._gradients > 0
        self._note()

    def on_after_backward(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self._gradients = self._standing.gradients()
        self._note()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Tagger, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._states = self._standing.optimizer_states()
        figures = self._of_process() if self._split is None else self._of_allocator(self._split)
        # Tensors of the host: Lightning would copy each number to the device, and wait for it.
        on_host = {f"memory/{name}": torch.tensor(float(figure)) for name, figure in figures.items()}
        pl_module.log_dict(on_host, on_step=True, on_epoch=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        # One that comes between the batches of an accumulated step is no part of it.
        reset_peak(pl_module.device)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _leave_block(self, number: int) -> None:
        if not self._accumulates:
            # Backward comes to the last block first, and has the gradients of the head by then.
            is_first = number == len(self._blocks) - 1
            of_block = self._standing.gradients(self._blocks[number])
            self._gradients = self._standing.gradients() if is_first else self._gradients + of_block
        self._note()

    def _note(self) -> None:
        if self._split is not None:
            now = read_allocator(self._device)
            self._split.note(Moment(now.allocated, self._gradients, self._states), now.peak_allocated)

    def _of_allocator(self, split: PeakSplit) -> dict[str, float]:
        now = read_allocator(self._device)
        split.note(Moment(now.allocated, self._gradients, self._states), now.peak_allocated)
        return {
            "peak_allocated_gib": split.peak / GIB,
            "peak_reserved_gib": now.peak_reserved / GIB,
            "allocator_retries": now.retries - self._before.retries,
            "allocator_failures": now.failures - self._before.failures,
            **{f"{name}_gib": part / GIB for name, part in split.parts().items()},
        }

    def _of_process(self) -> dict[str, float]:
        peak = peak_gib(self._device)["memory/peak_rss_gib"]
        counted = {
            "weights_gib": self._standing.weights / GIB,
            "gradients_gib": self._gradients / GIB,
            "optimizer_states_gib": self._states / GIB,
        }
        return {"peak_rss_gib": peak, **counted, "rest_gib": peak - sum(counted.values())}
