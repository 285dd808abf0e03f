"""file: tables from .npy and .safetensors, and an error with the path for every way in which one can be wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sparse_attention import patterns

TABLE = np.array([[0, 1], [1, -1], [2, 2]], dtype=np.int32)


def write(path: Path, table: np.ndarray) -> Path:
    if path.suffix == ".npy":
        np.save(path, table)
    else:
        save_file({"indices": torch.from_numpy(np.ascontiguousarray(table))}, path)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("table", [TABLE, np.stack([TABLE, TABLE[::-1]])], ids=["shared", "per head"])
def test_a_table_comes_back_as_it_was_written(tmp_path: Path, suffix: str, dtype: type, table: np.ndarray) -> None:
    layout = patterns.file(3, path=write(tmp_path / f"table{suffix}", table.astype(dtype)))
    assert layout.indices.tolist() == table.tolist()
    assert layout.num_heads == (2 if table.ndim == 3 else None)


def test_a_table_in_fortran_order_comes_back_as_it_was_written(tmp_path: Path) -> None:
    layout = patterns.file(3, path=str(write(tmp_path / "table.npy", np.asfortranarray(TABLE))))
    assert layout.indices.tolist() == TABLE.tolist()


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE[0], r"expected shape \(queries, slots\) or \(heads, queries, slots\), .*got \(2,\)"),
        (TABLE[None, None], r"got \(1, 1, 3, 2\)"),
        (TABLE[:, :0], r"none of them 0, got \(3, 0\)"),
        (TABLE.astype(np.float32), "expected dtype int32 or int64, got float32"),
        (TABLE.astype(np.int16), "expected dtype int32 or int64, got int16"),
        (TABLE[:2], "the table is for 2 tokens, but the sequence has 3"),
        (TABLE + 1, "row 2, slot 0 holds 3; expected a key position from 0 to 2"),
        (TABLE - 1, "row 1, slot 1 holds -2; expected a key position from 0 to 2"),
    ],
    ids=["rank 1", "rank 4", "no slots", "float", "int16", "length", "above", "below"],
)
def test_a_wrong_table_is_refused(tmp_path: Path, suffix: str, table: np.ndarray, message: str) -> None:
    path = write(tmp_path / f"table{suffix}", table)
    with pytest.raises(ValueError, match=f"path={path}: .*{message}"):
        patterns.file(3, path=path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 1, 9, 60, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, kept: int) -> None:
    path = write(tmp_path / f"table{suffix}", TABLE)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"path={path}: not a whole {suffix} file"):
        patterns.file(3, path=path)


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_a_missing_file_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*: there is no such file"):
        patterns.file(3, path=tmp_path / f"nowhere{suffix}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(ValueError, match="there is no such file"):
        patterns.file(3, path=tmp_path / "folder.npy")


@pytest.mark.parametrize("name", ["table.csv", "table", "table.npz"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"expected a file that ends in \.npy or \.safetensors"):
        patterns.file(3, path=tmp_path / name)


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"not a whole \.npy file of plain numbers"):
        patterns.file(3, path=tmp_path / "objects.npy")


def test_an_archive_under_the_wrong_name_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "table.npz", indices=TABLE)
    (tmp_path / "table.npz").rename(tmp_path / "table.npy")
    with pytest.raises(ValueError, match=r"not a whole \.npy file"):
        patterns.file(3, path=tmp_path / "table.npy")


def test_several_tensors_are_refused_with_their_names(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3, 1), "b": torch.zeros(3, 1)}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match=r"expected one tensor, got 2 \(a, b\)"):
        patterns.file(3, path=tmp_path / "two.safetensors")
