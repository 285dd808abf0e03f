"""`sparse_attention.show` draws to the terminal and to a file, whatever was imported first."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sparse_attention
from sparse_attention import Dense, patterns
from sparse_attention.show import show


def test_the_terminal_gets_a_title_a_drawing_and_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    sparse_attention.show(patterns.window(64, window=2, layout="index_list"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "index list, 64 queries, 64 keys"
    assert any(line.startswith("edges") and line.split()[1] == "314" for line in lines)
    assert not any(character in "".join(lines) for character in "\x1b\t\r")


def test_an_output_that_knows_ascii_alone_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    show(patterns.random(3000))
    sys.stdout.flush()
    assert b"+------" in written.getvalue()


@pytest.mark.parametrize("width", ["60", "200"])
def test_the_drawing_is_as_wide_as_the_terminal_allows(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    show(Dense(10_000))
    frame = next(line for line in capsys.readouterr().out.splitlines() if "┌" in line)
    assert 40 <= len(frame) <= int(width)


def test_the_figure_goes_to_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(patterns.window(64, window=2), tmp_path / "window.png")
    assert (tmp_path / "window.png").read_bytes().startswith(b"\x89PNG")
    assert "edges" in capsys.readouterr().out


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    for name, reason in (
        ("a.gif", "ends in .png, .svg or .pdf"),
        ("none/a.png", "there is no folder"),
        ("folder.png", "this is a folder"),
    ):
        with pytest.raises(ValueError, match=f"path={tmp_path}/{name}: .*{reason}"):
            show(Dense(4), tmp_path / name)
    assert capsys.readouterr().out == ""


def test_a_content_based_pattern_is_shown_once_it_has_seen_the_content(capsys: pytest.CaptureFixture[str]) -> None:
    layout = patterns.knn(64, num_nearest=3)
    with pytest.raises(ValueError, match=r"depends on queries and keys; show what its resolve\(q, k\) returns"):
        show(layout)
    q, k = torch.randn(2, 1, 2, 64, 8)
    show(layout.resolve(q, k))
    assert "head 1" in capsys.readouterr().out


def test_what_is_no_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="pattern: expected a layout, such as an IndexList, got function"):
        show(patterns.window)  # pyright: ignore[reportArgumentType]


IMPORTS = (
    "import sparse_attention; import sparse_attention.show as show; import sparse_attention.pictures.figure",
    "from sparse_attention.show import show; import sparse_attention.show.arguments; import sparse_attention",
)


@pytest.mark.parametrize("imports", IMPORTS)
def test_the_name_is_the_functions_in_either_order_of_imports(imports: str) -> None:
    program = f"{imports}; assert sparse_attention.show is show; sparse_attention.show(sparse_attention.Dense(9))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=120)
    assert run.stderr == b""
    assert run.returncode == 0
