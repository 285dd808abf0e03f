"""Where the time of a few steps goes: a trace for a viewer, and the costliest operators as a table."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich import box
from rich.console import Console
from rich.table import Table
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile, schedule

from longtag.errors import UsageError


class Profile(Callback):
    """Writes ``profile/trace.json.gz`` (open it in ui.perfetto.dev or chrome://tracing) and ``profile/operators.txt``.

    Args:
        wait: optimizer steps that go by first.
        warmup: steps that are watched and thrown away: what is watched first is slow.
        steps: steps in the trace.
        operators: lines of the table.
    """

    def __init__(self, *, wait: int = 1, warmup: int = 1, steps: int = 3, operators: int = 15) -> None:
        for name, value, smallest in (("wait", wait, 0), ("warmup", warmup, 0), ("steps", steps, 1)):
            if value < smallest:
                raise UsageError(f"{name}={value}: expected a number of optimizer steps from {smallest} up")
        if operators < 1:
            raise UsageError(f"operators={operators}: expected a number of lines from 1 up")
        self.wait, self.warmup, self.steps, self.operators = wait, warmup, steps, operators
        self._profiler: profile | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        on_gpu = pl_module.device.type == "cuda"
        self._folder, self._step = Path(trainer.default_root_dir) / "profile", trainer.global_step
        self._profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])],
            schedule=schedule(wait=self.wait, warmup=self.warmup, active=self.steps, repeat=1),
            on_trace_ready=lambda profiler: self._write(profiler, on_gpu=on_gpu),
        )
        self._profiler.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._profiler is not None and trainer.global_step > self._step:
            self._step = trainer.global_step
            self._profiler.step()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _write(self, profiler: profile, *, on_gpu: bool) -> None:
        self._folder.mkdir(exist_ok=True)
        draft = self._folder / "part.trace.json.gz"
        try:
            profiler.export_chrome_trace(str(draft))
            draft.replace(self._folder / "trace.json.gz")
        finally:
            draft.unlink(missing_ok=True)
        table = costliest(profiler.key_averages(), self.operators, on_gpu=on_gpu)
        with (self._folder / "operators.txt").open("w") as file:
            Console(file=file, width=120, highlight=False).print(table)
        Console(highlight=False).print(table)
        print(f"trace of {self.steps} steps: {self._folder / 'trace.json.gz'}", flush=True)


def costliest(events: Any, lines: int, *, on_gpu: bool) -> Table:
    """The operators that took most time by themselves, without those that they call, on the GPU or on the CPU."""

    def own_ms(event: FunctionEventAvg) -> float:
        return (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e3

    # On the host's side alone, where a kernel counts for the operator that starts it; and without the spans of steps.
    operators = [event for event in events if event.device_type.name == "CPU" and not event.is_user_annotation]
    operators = [event for event in operators if own_ms(event) > 0]
    operators.sort(key=own_ms, reverse=True)
    total = sum(map(own_ms, operators))
    device = "GPU" if on_gpu else "CPU"
    table = Table("operator", box=box.ASCII2)
    for column in (f"{device} ms", "share", "calls"):
        table.add_column(column, justify="right")
    for event in operators[:lines]:
        table.add_row(event.key, f"{own_ms(event):,.2f}", f"{own_ms(event) / total:.1%}", f"{event.count:,}")
    return table
