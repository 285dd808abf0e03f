"""A pattern from a file: the table itself, made by whatever program knows which keys matter."""

from pathlib import Path

import torch
from torch import Tensor

from ..layouts import IndexList
from .options import check_at_least


def file(num_tokens: int, *, path: str | Path) -> IndexList:
    """The table in a .npy file, or the only tensor of a .safetensors file.

    Shape (num_tokens, n), or (heads, num_tokens, n) for a pattern per head; int32 or int64; -1 for an empty slot.

    Raises ValueError, with the path and what is wrong, for a file that is missing, truncated or of another kind, and
    for a table of the wrong shape, dtype or range.
    """
    check_at_least(1, num_tokens=num_tokens)
    path = Path(path)
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise ValueError(f"path={path}: expected a file that ends in {' or '.join(readers)}")
    if not path.is_file():
        raise ValueError(f"path={path}: there is no such file")
    table = readers[path.suffix](path)
    if table.dim() in (2, 3) and table.shape[-2] != num_tokens:
        raise ValueError(f"path={path}: the table is for {table.shape[-2]} tokens, but the sequence has {num_tokens}")
    try:
        return IndexList(table)
    except ValueError as error:
        raise ValueError(f"path={path}: {error}") from error


def _read_npy(path: Path) -> Tensor:
    from numpy.lib.format import read_array

    try:
        with path.open("rb") as stream:
            array = read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"path={path}: not a whole .npy file of plain numbers ({error})") from error
    if str(array.dtype) not in ("int32", "int64"):
        raise ValueError(f"path={path}: expected dtype int32 or int64, got {array.dtype}")
    return torch.from_numpy(array)


def _read_safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"path={path}: not a whole .safetensors file ({error})") from error
    if len(tensors) != 1:
        raise ValueError(f"path={path}: expected one tensor, got {len(tensors)} ({', '.join(sorted(tensors))})")
    return next(iter(tensors.values()))
