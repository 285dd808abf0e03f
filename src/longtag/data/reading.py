"""Open a user's input file, plain or gzip, and turn every way that can fail into a UsageError."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from longtag.errors import UsageError

GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def open_input(path: str | Path, option: str) -> Iterator[BinaryIO]:
    """Yield the decompressed bytes of a file; gzip is told by its first two bytes, not by the file's name.

    Failures, also those that show only while the body of the `with` reads, are UsageErrors that name `option`.
    """
    try:
        with open(path, "rb") as file:
            first_bytes = file.peek(2)[:2]
            if not first_bytes:
                raise UsageError(f"{option}={path}: the file is empty; give a file with content")
            if first_bytes == GZIP_MAGIC:
                with gzip.open(file) as decompressed:
                    yield io.BufferedReader(decompressed)  # pyright: ignore[reportArgumentType]
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(
            f"{option}={path}: the gzip file is truncated or damaged ({error}); copy it anew and check it with gzip -t"
        ) from error
    except FileNotFoundError as error:
        raise UsageError(f"{option}={path}: there is no such file; relative paths start at {Path.cwd()}") from error
    except OSError as error:
        raise UsageError(f"{option}={path}: the file cannot be read: {error.strerror}") from error
