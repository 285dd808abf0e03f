"""`python -m sparse_attention.show`: what it prints, writes and answers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparse_attention.show.__main__ import main
from sparse_attention.show.arguments import options_of, pattern_names

COMMAND = [sys.executable, "-W", "error", "-m", "sparse_attention.show"]


def test_it_draws_and_writes_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dilated.svg"
    assert main(["pattern=dilated", "tokens=90", "window=2", "dilations=[1,16]", f"out={out}"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("pattern=dilated  tokens=90  window=2  dilations=[1,16]\n")
    assert printed.endswith(f"figure: {out}\n")
    assert out.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tokens=9"], "pattern: missing; give pattern=..., one of bigbird, dense"),
        (["pattern=dense"], "tokens: missing; give tokens=..., such as tokens=1000"),
        (["pattern=dense", "tokens=1e3"], "tokens=1e3: expected a whole number, 1 or more"),
        (["pattern=dense", "tokens=0"], "tokens=0: expected a whole number, 1 or more"),
        (["pattern=dense", "tokens=_"], "tokens=_: expected a whole number, 1 or more"),
        (["pattern=dense", "tokens=9", "tokens=9"], "tokens=9: tokens is given twice"),
        (["pattern=dense", "tokens=9", "--causal"], "--causal: expected name=value"),
        (["pattern=window", "tokens=9", "window=-1"], "window=-1: expected a whole number, 0 or more"),
        (["pattern=random", "tokens=9", f"keys_per_query={10**20}"], f"keys_per_query={10**20}: positions are numbers"),
        (["pattern=window", f"tokens={10**11}", "window=1"], f"num_tokens={10**11}: positions are numbers of 32 bits"),
        (["pattern=dense", "tokens=9", "out=a.gif"], "out=a.gif: expected a file that ends in .png, .svg or .pdf"),
        (
            ["pattern=knn", "tokens=9", "num_nearest=2"],
            "pattern: which keys a Nearest lists depends on queries and keys",
        ),
    ],
)
def test_a_mistake_gives_a_line_on_stderr_and_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_too_little_memory_is_no_fault_of_the_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000 bytes.")

    monkeypatch.setitem(main.__globals__, "show", refuse)
    assert main(["pattern=dense", "tokens=9"]) == 2
    assert capsys.readouterr().err == "error: tokens: this machine has too little memory for so many; give fewer\n"


def test_help_names_every_pattern_with_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pattern=window", "--help"]) == 0
    printed = capsys.readouterr().out
    for name in pattern_names():
        assert f"\n  {name}: " in printed
        for option in options_of(name):
            assert f"\n    {option}=" in printed
    assert main([]) == 2


def test_as_a_command_it_warns_of_nothing_and_bows_to_the_output() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "50"}
    run = subprocess.run(
        [*COMMAND, "pattern=random", "tokens=5000"], capture_output=True, env=environment, timeout=120, check=True
    )
    assert run.stderr == b""
    assert b"+----" in run.stdout
    assert max(map(len, run.stdout.decode("ascii").splitlines()[2:20])) <= 50


def test_a_reader_who_leaves_early_is_no_error() -> None:
    run = subprocess.Popen([*COMMAND, "pattern=dense", "tokens=100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout is not None
    run.stdout.close()
    assert run.wait(timeout=120) == 0
    assert run.stderr is not None
    assert run.stderr.read() == b""
    run.stderr.close()
