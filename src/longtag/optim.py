"""AdamW with a linear warm-up and a cosine or constant rate."""

import math
from typing import Any, Literal

import torch
from torch import nn

from longtag.errors import UsageError
from longtag.memory.in_backward import AdamWInBackward


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
    ) -> None:
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

    def configure(self, model: nn.Module, *, max_steps: int) -> dict[str, Any]:
        """The optimizer and schedule in the form that Lightning takes, the rate changing at every optimizer step."""
        adamw = AdamWInBackward if self.in_backward else torch.optim.AdamW
        optimizer = adamw(
            self._parameter_groups(model), lr=self.learning_rate, betas=(self.betas[0], self.betas[1]), eps=self.eps
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, max_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def factor(self, step: int, max_steps: int) -> float:
        """The rate at an optimizer step, counted from 0, as a fraction of ``learning_rate``."""
        warmup_steps = min(self.warmup_steps, max_steps // 2)
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if self.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
        return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))

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
