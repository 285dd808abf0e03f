"""AdamW for weights in bfloat16 and running means in fewer bits; what it computes in between is float32."""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from longtag.errors import UsageError
from longtag.memory.in_backward import InBackward
from longtag.optim.rounding import joined, split, stochastic
from longtag.optim.states import Kept, States, code_table, flat, in_float32, kept_as, read, take_over, write

Update = Literal["nearest", "stochastic", "compensated"]

MEANS = {"exp_avg": True, "exp_avg_sq": False}
"""The running means by the names of torch's AdamW, and whether they have a sign."""


class LowPrecisionAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) that keeps less than float32 between its steps.

    Args:
        params: groups of parameters.
        lr, betas, eps, weight_decay: as those of torch's AdamW.
        states: how the running means are kept; `states.py` has the kinds.
        update: how a new weight enters bfloat16. "nearest" rounds, and loses what is below 0.2 % of the weight;
            "stochastic" rounds up or down so that the mean is right; "compensated" keeps the 16 bits that the weight
            has no room for as one more state, which is as exact as weights in float32.

    Random bits follow from step and parameter alone: devices agree on their weights, and a run that is resumed draws
    what it would have drawn. Means in bfloat16 of squares are rounded stochastically, too: to the nearest they would
    stand still for betas[1] above 0.996. On CUDA the arithmetic is compiled, once for weights of all sizes.

    Raises UsageError for weights wider than float32, and for another update than "nearest" of those not in bfloat16.
    """

    found_inf: Tensor | None = None
    """Where it is a scalar of 1.0, a step does nothing. The host waits for it: it is the host that counts the steps."""

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float = 0.0,
        states: States = "float32",
        update: Update = "nearest",
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.states: States = states
        self.update: Update = update
        self._numbers = {parameter: number for number, parameter in enumerate(_members(self.param_groups))}
        for parameter in self._numbers:
            if update != "nearest" and parameter.dtype != torch.bfloat16:
                raise UsageError(f"update={update}: rounds weights of bfloat16, not of {parameter.dtype}")
            if parameter.dtype.itemsize > 4:
                raise UsageError(
                    f"states={states}: steps are computed in float32, too little for weights of {parameter.dtype}; "
                    "give optim.states=float32, which keeps the weights' own dtype"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.found_inf is not None and self.found_inf:
            return loss
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._advance(parameter, parameter.grad, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of any optimizer of this package, or of torch's AdamW, into the kind that is kept here."""
        # Without the states, which torch would cast to the weights' dtype.
        super().load_state_dict({**state_dict, "state": {}})
        for number, parameter in zip(_members(state_dict["param_groups"]), _members(self.param_groups), strict=True):
            if saved := state_dict["state"].get(number):
                self.state[parameter] = self._restored(parameter, saved)

    def _advance(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter] or self._begin(parameter)
        state["step"] += 1
        step, rate, (beta1, beta2) = state["step"], group["lr"], group["betas"]
        in_8_bits = any(isinstance(state[name], tuple) for name in MEANS)
        take_step = _compiled() if parameter.device.type == "cuda" else _take_step
        take_step(
            parameter.detach().view(-1),
            gradient.reshape(-1),
            [flat(state[name]) for name in MEANS],
            [code_table(signed, parameter.device) if in_8_bits else None for signed in MEANS.values()],
            state["cut_off"].view(-1) if "cut_off" in state else None,
            self._noise(parameter, step),
            # Tensors, so that a new value is no new program where this is compiled.
            torch.tensor(1 - rate * group["weight_decay"]),
            torch.tensor(rate / (1 - beta1**step)),
            torch.tensor(math.sqrt(1 - beta2**step)),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            rounds_stochastically=self.update == "stochastic",
        )

    def _begin(self, parameter: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = {"step": 0, **{name: kept_as(self.states, parameter) for name in MEANS}}
        if self.update == "compensated":
            state["cut_off"] = torch.zeros_like(parameter, dtype=torch.int16)
        self.state[parameter] = state
        return state

    def _noise(self, parameter: Tensor, step: int) -> Tensor | None:
        """32 random bits for each element, int32, if there is something to round with them."""
        if self.update != "stochastic" and self.states != "bfloat16":
            return None
        generator = torch.Generator(parameter.device).manual_seed(step * len(self._numbers) + self._numbers[parameter])
        bits = torch.empty(parameter.numel(), dtype=torch.int32, device=parameter.device)
        return bits.random_(-(2**31), 2**31, generator=generator)

    def _restored(self, parameter: Tensor, saved: dict[str, Any]) -> dict[str, Any]:
        state = self._begin(parameter)
        state["step"] = int(saved["step"])
        for name, signed in MEANS.items():
            take_over(state[name], saved[name], signed=signed)
        if "cut_off" in state and "cut_off" in saved:
            state["cut_off"].copy_(saved["cut_off"])
        return state


class LowPrecisionAdamWInBackward(InBackward, LowPrecisionAdamW):
    """The same inside of backward."""


def widened(state: dict[str, Any]) -> dict[str, Any]:
    """A parameter's saved state as torch's AdamW has it: means in float32 or wider, and no others."""
    means = {
        name: in_float32(state[name], signed=signed) if isinstance(state[name], tuple) else state[name]
        for name, signed in MEANS.items()
    }
    return {"step": torch.tensor(float(state["step"])), **means}


def _members(groups: Iterable[dict[str, Any]]) -> Iterable[Any]:
    return itertools.chain.from_iterable(group["params"] for group in groups)


@functools.cache
def _compiled() -> Callable[..., None]:
    return torch.compile(_take_step, fullgraph=True, dynamic=True)


def _take_step(
    weight: Tensor,
    gradient: Tensor,
    means: Sequence[Kept],
    tables: Sequence[Tensor | None],
    cut_off: Tensor | None,
    noise: Tensor | None,
    decay: Tensor,
    rate: Tensor,
    root_of_correction: Tensor,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    rounds_stochastically: bool,
) -> None:
    """One step of one parameter, everything in a row of its elements."""
    (kept_mean, kept_squares), (mean_table, squares_table) = means, tables
    exact = weight.float() if cut_off is None else joined(weight, cut_off)
    slope = gradient.float()
    mean = read(kept_mean, mean_table).lerp(slope, 1 - beta1)
    squares = read(kept_squares, squares_table).lerp(slope.square(), 1 - beta2)
    exact = exact * decay - rate * mean / (squares.sqrt() / root_of_correction + eps)
    write(kept_mean, mean, mean_table)
    write(kept_squares, squares, squares_table, None if noise is None else (noise >> 16) & 0xFFFF)
    if cut_off is not None:
        rounded, rest = split(exact)
        weight.copy_(rounded)
        cut_off.copy_(rest)
    elif rounds_stochastically and noise is not None:
        weight.copy_(stochastic(exact, noise & 0xFFFF))
    else:
        weight.copy_(exact)
