"""AdamW with a linear warm-up and a cosine or constant rate."""

import math
from typing import Any, Literal, get_args

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from longtag.errors import UsageError
from longtag.optim.adamw import AdamW, AdamWInBackward
from longtag.optim.low_precision import LowPrecisionAdamW, LowPrecisionAdamWInBackward, Update
from longtag.optim.states import States, code_table


class Optimization:
    """Makes the optimizer and the learning-rate schedule of a run (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Weight decay acts on matrices alone: biases, norms and embeddings have no decay.

    Args:
        learning_rate: the highest rate, reached at the end of the warm-up.
        weight_decay: the decoupled decay of AdamW, per step and unit of learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the mean square.
        warmup_steps: optimizer steps over which the rate rises linearly from 0.
        schedule: after the warm-up, ``cosine`` falls to ``final_fraction`` at the last step, ``constant`` stays.
        final_fraction: the last rate of the cosine, as a fraction of ``learning_rate``.
        in_backward: step each parameter when its gradient is ready and free the gradient, instead of all at the end.
            Saves the gradients, 4 bytes a parameter; not together with clipping, accumulated batches, several devices
            or float16.
        states: how the two running means are kept: ``float32`` (8 bytes a parameter), ``bfloat16`` (4) or ``8bit``
            (2.03; needs torchao). Weights of fewer than 4096 elements, or not of whole blocks of 256, have theirs in
            float32 where 8 bits are asked for.
        update: how weights in bfloat16 are updated: ``nearest`` rounds them, and loses what is below 0.2 % of a weight;
            ``stochastic`` is right in the mean; ``compensated`` keeps what was cut off, 2 bytes a parameter, and is as
            exact as weights in float32.
    """

    def __init__(
        self,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        warmup_steps: int = 10,
        schedule: Literal["cosine", "constant"] = "cosine",
        final_fraction: float = 0.1,
        in_backward: bool = False,
        states: States = "float32",
        update: Update = "nearest",
    ) -> None:
        for name, value, allowed in (("states", states, get_args(States)), ("update", update, get_args(Update))):
            if value not in allowed:
                raise UsageError(f"{name}={value}: expected one of {', '.join(allowed)}")
        for name, value in (("learning_rate", learning_rate), ("weight_decay", weight_decay), ("eps", eps)):
            if value < 0:
                raise UsageError(f"{name}={value}: expected 0 or more")
        for beta in betas:
            if not 0 <= beta < 1:
                raise UsageError(f"betas={list(betas)}: expected two numbers from 0 to below 1")
        if warmup_steps < 0:
            raise UsageError(f"warmup_steps={warmup_steps}: expected 0 or more optimizer steps")
        if not 0 <= final_fraction <= 1:
            raise UsageError(f"final_fraction={final_fraction}: expected a fraction from 0 to 1")
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas = betas
        self.eps = eps
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.final_fraction = final_fraction
        self.in_backward = in_backward
        self.states: States = states
        self.update: Update = update
        if states == "8bit":
            code_table(True, torch.device("cpu"))  # or say that it needs another package, before anything is built

    def configure(self, model: nn.Module, *, max_steps: int) -> dict[str, Any]:
        """The optimizer and schedule in the form that Lightning takes, the rate changing at every optimizer step."""
        groups = self._parameter_groups(model)
        options: dict[str, Any] = {"lr": self.learning_rate, "betas": tuple(self.betas), "eps": self.eps}
        if self._is_all_in_float32(model):
            optimizer = (AdamWInBackward if self.in_backward else AdamW)(groups, **options)
        else:
            low_precision = LowPrecisionAdamWInBackward if self.in_backward else LowPrecisionAdamW
            optimizer = low_precision(groups, **options, states=self.states, update=self.update)
        schedule = LambdaLR(optimizer, lambda step: self.factor(step, max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def set_options(self, optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> None:
        """Rates, decay and means of this run, in the place of those that came back with a checkpoint."""
        rate = self.learning_rate * schedule.lr_lambdas[0](schedule.last_epoch)
        for group, decay in zip(optimizer.param_groups, (self.weight_decay, 0.0), strict=True):
            group.update(lr=rate, initial_lr=self.learning_rate, weight_decay=decay)
            group.update(betas=tuple(self.betas), eps=self.eps)
        schedule.base_lrs = [self.learning_rate for _ in optimizer.param_groups]
        schedule._last_lr = [rate for _ in optimizer.param_groups]

    def factor(self, step: int, max_steps: int) -> float:
        """The rate at an optimizer step, counted from 0, as a fraction of ``learning_rate``."""
        warmup_steps = min(self.warmup_steps, max_steps // 2)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if self.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
        return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

    def _is_all_in_float32(self, model: nn.Module) -> bool:
        """Or wider. Torch's AdamW would keep the states of narrower weights as narrow as these."""
        narrow = any(parameter.dtype.itemsize < 4 for parameter in model.parameters())
        return self.states == "float32" and self.update == "nearest" and not narrow

    def _parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        embeddings = {
            id(parameter)
            for module in model.modules()
            if isinstance(module, nn.Embedding)
            for parameter in module.parameters()
        }
        decayed, plain = [], []
        for parameter in model.parameters():
            is_matrix = parameter.ndim >= 2 and id(parameter) not in embeddings
            (decayed if is_matrix else plain).append(parameter)
        return [
            {"params": decayed, "weight_decay": self.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
