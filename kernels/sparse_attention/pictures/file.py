"""The file that a figure goes to: looked at before any work is done, and written whole or not at all."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".png", ".svg", ".pdf")


def check_path(path: Path, option: str) -> None:
    """Raise ValueError, naming `option`, for a kind of file that is not written, and for a folder that is not there."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{option}={path}: expected a file that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")
    if not path.parent.is_dir():
        raise ValueError(f"{option}={path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ValueError(f"{option}={path}: this is a folder; give a file in it")


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` in place of what the file held, at once."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
