"""A short way to the loggers for numbers of a training step that the host knows already.

`LightningModule.log` makes a metric of each value, on the device: 0.2 to 0.3 ms of the host's time, a copy to the
device and one back, while the device has nothing to do. Twenty of them would cost a step of 100 ms several per cent.
"""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.trainer.connectors.logger_connector.result import _METRICS, _ResultCollection
from torch import Tensor


class StepResults(_ResultCollection):
    """What Lightning gathers of training steps, and `numbers` beside it; a number stays until it is replaced."""

    def __init__(self) -> None:
        super().__init__(training=True)
        self.numbers: dict[str, Any] = {}

    def metrics(self, on_step: bool) -> _METRICS:
        metrics = super().metrics(on_step)
        if on_step:
            metrics["callback"].update(self.numbers)
            metrics["log"].update(self.numbers)
        return metrics


class LogsNumbers(L.LightningModule):
    """`log_dict(numbers, on_step=True, on_epoch=False)` takes the short way for what is on the host."""

    def on_fit_start(self) -> None:
        self.trainer.fit_loop.epoch_loop._results = StepResults()

    def log_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, dictionary: Mapping[str, Any], *arguments: Any, **options: Any
    ) -> None:
        results = self.trainer._results
        of_one_step = not arguments and options == {"on_step": True, "on_epoch": False}
        if isinstance(results, StepResults) and of_one_step and all(map(_on_host, dictionary.values())):
            results.numbers.update({name: float(value) for name, value in dictionary.items()})
        else:
            super().log_dict(dictionary, *arguments, **options)


def _on_host(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, Tensor) and value.device.type == "cpu")
