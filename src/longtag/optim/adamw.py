"""torch's AdamW in its fused form, all in float32 (or wider, as the weights are)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from longtag.memory.in_backward import InBackward
from longtag.optim.low_precision import widened


class AdamW(torch.optim.AdamW):
    """One kernel for the whole step; goes on from states that were kept in fewer bits, too."""

    found_inf: Tensor | None = None
    """Where it is a scalar of 1.0 on the device, the kernel changes neither weights nor states; the host need not know,
    so that it need not wait for the device in the middle of a step."""

    def __init__(self, params: Iterable[dict[str, Any]], **options: Any) -> None:
        super().__init__(params, **options, fused=True)
        # It could undo the loss scale of float16 by itself, and is then refused where gradients are clipped.
        self._step_supports_amp_scaling = False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of any optimizer of this package, or of torch's AdamW."""
        super().load_state_dict(
            {
                "state": {number: widened(state) for number, state in state_dict["state"].items()},
                "param_groups": [{**group, "fused": True, "foreach": None} for group in state_dict["param_groups"]],
            }
        )


class AdamWInBackward(InBackward, AdamW):
    """The same inside of backward."""
