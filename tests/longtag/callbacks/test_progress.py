# pyright: reportArgumentType=false
import io
from types import SimpleNamespace

import torch
from rich.console import Console

from longtag.callbacks.progress import Progress

FIGURES = {
    "train/loss": torch.tensor(0.5),
    "throughput/tokens_per_second": torch.tensor(123_400.0),
    "memory/peak_rss_gib": torch.tensor(1.25),
}


def trainer(step: int, max_steps: int = 4) -> SimpleNamespace:
    return SimpleNamespace(
        global_step=step,
        max_steps=max_steps,
        is_global_zero=True,
        sanity_checking=False,
        callback_metrics=FIGURES,
        state=SimpleNamespace(fn="fit"),
    )


def follow(progress: Progress, steps: int) -> None:
    progress.on_train_start(trainer(0), None)
    for step in range(1, steps + 1):
        progress.on_train_batch_end(trainer(step), None, None, None, step)
    progress.teardown(trainer(steps), None, "fit")


def test_a_file_gets_plain_lines_for_the_first_and_the_last_step(capsys):
    follow(Progress(plain_every_seconds=1000), 4)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 1/4", "step 4/4"]
    assert lines[-1] == "step 4/4  loss 0.5000  123k tokens/s  peak 1.25 GiB  0:00 left"


def test_a_file_gets_every_step_when_steps_are_slow(capsys):
    follow(Progress(plain_every_seconds=0), 4)
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_terminal_gets_one_live_line_with_the_same_figures(capsys):
    progress = Progress()
    screen = io.StringIO()
    progress._console = Console(file=screen, force_terminal=True, width=120)
    follow(progress, 4)
    assert "\x1b[" in screen.getvalue()
    for text in ("step 4/4", "loss 0.5000", "123k tokens/s", "peak 1.25 GiB", "0:00 left"):
        assert text in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_the_time_left_follows_the_pace_of_this_run_and_not_of_the_steps_before_a_resume(monkeypatch):
    now = iter([100.0, 120.0])
    monkeypatch.setattr("longtag.callbacks.progress.time.perf_counter", lambda: next(now))
    progress = Progress()
    progress.on_train_start(trainer(50, 100), None)
    assert progress._time_left(trainer(60, 100)) == "1:20"
