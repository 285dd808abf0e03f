# pyright: reportArgumentType=false
import io
import logging
import re
import sys
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


def on_terminal(monkeypatch, width: int = 120) -> tuple[Progress, io.StringIO]:
    """A monitor whose standard output and error are one terminal, as in a shell."""
    screen = io.StringIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, screen)
        monkeypatch.setattr(sys, f"__{name}__", screen)
    progress = Progress()
    progress._console = Console(file=screen, force_terminal=True, width=width)
    return progress, screen


def test_the_live_line_is_drawn_a_few_times_a_second_however_short_the_steps(monkeypatch):
    progress, screen = on_terminal(monkeypatch)
    follow(progress, 3)
    assert "step 1/4" in screen.getvalue()
    assert "step 2/4" not in screen.getvalue()
    monkeypatch.setattr("longtag.callbacks.progress.REDRAWN_EVERY_SECONDS", 0)
    follow(progress, 3)
    assert "step 2/4" in screen.getvalue()


def test_a_narrow_terminal_gets_no_line_that_is_wider(monkeypatch):
    progress, screen = on_terminal(monkeypatch, width=30)
    follow(progress, 4)
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", screen.getvalue()).splitlines() if line]
    assert any("step 4/4" in line for line in lines)
    assert max(map(len, lines)) <= 30


def test_what_is_logged_meanwhile_appears_on_a_line_of_its_own(monkeypatch):
    handler = logging.StreamHandler()
    progress, screen = on_terminal(monkeypatch)
    handler.setStream(screen)
    logger = logging.getLogger("a library")
    logger.addHandler(handler)
    try:
        progress.on_train_start(trainer(0), None)
        progress.on_train_batch_end(trainer(1), None, None, None, 1)
        screen.truncate(0)
        logger.warning("take care")
        progress.teardown(trainer(1), None, "fit")
        assert re.search(r"\r\x1b\[2Ktake care", screen.getvalue())  # the live line is wiped first
        assert handler.stream is screen
    finally:
        logger.removeHandler(handler)


def test_a_run_that_fails_gives_the_terminal_back(monkeypatch):
    progress, screen = on_terminal(monkeypatch)
    progress.on_train_start(trainer(0), None)
    progress.on_train_batch_end(trainer(1), None, None, None, 1)
    assert sys.stdout is not screen
    progress.on_exception(trainer(1), None, RuntimeError())
    assert sys.stdout is screen
    assert screen.getvalue().rstrip().endswith("\x1b[?25h")  # the cursor is shown again


def test_the_time_left_follows_the_pace_of_this_run_and_not_of_the_steps_before_a_resume(monkeypatch):
    now = iter([100.0, 120.0])
    monkeypatch.setattr("longtag.callbacks.progress.time.perf_counter", lambda: next(now))
    progress = Progress()
    progress.on_train_start(trainer(50, 100), None)
    assert progress._time_left(trainer(60, 100)) == "1:20"
