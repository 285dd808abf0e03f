"""Launch parameters: the rule, what a user has tuned, and what a broken cache does."""

import json
import re
from pathlib import Path

import pytest
import torch

from sparse_attention import tune
from sparse_attention.testing import awkward_layout
from sparse_attention.triton import why_not
from sparse_attention.triton.index_list import launch
from sparse_attention.triton.index_list.launch import Tile, Tiles, cache_path, rule, store, tiles_for

CPU = torch.device("cpu")
TUNED = Tiles(Tile(2, 4), Tile(4, 4, 2, 96), Tile(8, 1), 32)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    launch._tuned_for.cache_clear()


def test_stored_parameters_are_found_again() -> None:
    store({(2, 40, 3): TUNED}, CPU)
    assert tiles_for(torch.bfloat16, 40, 3, CPU) == TUNED
    assert tiles_for(torch.float32, 40, 3, CPU) == rule(4, 40, 3)


def test_storing_keeps_what_was_tuned_before() -> None:
    store({(2, 40, 3): TUNED}, CPU)
    path = store({(2, 48, 3): rule(2, 48, 3)}, CPU)
    assert set(json.loads(path.read_text())) == {"2 40 3", "2 48 3"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{", '{"2 40 3": {"piece": 64}}', "[]"])
def test_a_cache_that_cannot_be_read_is_passed_over(content: str) -> None:
    path = cache_path("cpu")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert tiles_for(torch.bfloat16, 40, 3, CPU) == rule(2, 40, 3)


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("head_dim", [8, 64, 80, 128, 768, 1024])
@pytest.mark.parametrize("slots", [1, 5, 8, 4096])
def test_all_tiles_have_power_of_two_sides(itemsize: int, head_dim: int, slots: int) -> None:
    tiles = rule(itemsize, head_dim, slots)
    sides = [side for tile in (tiles.forward, tiles.by_query, tiles.by_key) for side in (tile.rows, tile.slots)]
    assert all(side & (side - 1) == 0 for side in [*sides, tiles.piece])


@pytest.mark.parametrize(
    ("head_dim", "slots", "dtype", "kept"),
    [
        (16, 8, torch.bfloat16, True),
        (15, 8, torch.bfloat16, False),
        (64, 16, torch.bfloat16, True),
        (64, 17, torch.bfloat16, False),
        (64, 17, torch.float32, True),
        (768, 192, torch.bfloat16, True),
        (768, 193, torch.bfloat16, False),
    ],
)
def test_weights_are_kept_where_they_take_little_beside_a_row(
    head_dim: int, slots: int, dtype: torch.dtype, kept: bool
) -> None:
    assert launch.keeps_weights(head_dim, slots, dtype) == kept


def test_long_lists_go_through_passes_if_their_weights_are_kept() -> None:
    tiles = rule(2, 64, 16)
    assert launch.takes_passes(64, 16, tiles, keeps=True)
    assert not launch.takes_passes(64, 16, tiles, keeps=False)
    assert not launch.takes_passes(64, 8, tiles, keeps=True)
    assert launch.takes_passes(128, 8, rule(2, 128, 8), keeps=False)


def test_a_limit_on_registers_is_only_for_compilers_that_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tile(4, 8, 2).options == {"num_warps": 2}
    assert Tile(4, 8, 2, registers=64).options == {"num_warps": 2, "maxnreg": 64}
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert Tile(4, 8, 2, registers=64).options == {"num_warps": 2}


@pytest.mark.parametrize(("slots", "widest"), [(1, 1), (2, 2), (3, 4), (4, 4), (8, 8), (64, 8)])
@pytest.mark.parametrize("kernel", ["forward", "by_query"])
def test_candidates_for_tuning_fit_the_list(kernel: str, slots: int, widest: int) -> None:
    candidates = tune.candidates(tune.Shape(torch.bfloat16, 64, slots, 1000), kernel)
    assert len(candidates) > 2
    assert max(tile.slots for tile in candidates) == widest
    assert len(set(candidates)) == len(candidates)


def test_tuning_without_a_gpu_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        tune.main([])
    assert "torch sees none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "0", "8"], "argument --shape: 0: expected a whole number, 1 or more"),
        (["--shape", "4", "8"], "--shape 4 8: the kernels take a head_dim from 8 to 1024"),
        (["--shape", "64", "5000"], "--shape 64 5000: .* 4096 slots at most"),
        (["--tokens", "-1"], "argument --tokens: -1: expected a whole number, 1 or more"),
        (["--processes", "0"], "argument --processes: 0: expected a whole number, 1 or more"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_a_gpu_is_asked_for(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as left:
        tune.main(arguments)
    assert left.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.gpu
def test_tuning_leaves_parameters_that_the_library_reads() -> None:
    tune.main(["--shape", "16", "2", "--tokens", "1000", "--processes", "4"])
    assert (2, 16, 2) in launch._tuned_for(torch.cuda.get_device_name())


@pytest.mark.parametrize(
    ("dtype", "head_dim", "slots", "reason"),
    [
        (torch.float64, 16, 2, "too coarse for float64"),
        (torch.float32, 4, 2, "head_dim 4 is not between 8 and 1024"),
        (torch.float32, 2048, 2, "head_dim 2048 is not between 8 and 1024"),
        (torch.float32, 16, 5000, "5000 keys"),
        (torch.bfloat16, 16, 2, None),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_the_reason(
    dtype: torch.dtype, head_dim: int, slots: int, reason: str | None
) -> None:
    q = torch.empty(1, 1, 3, head_dim, dtype=dtype, device="meta")
    answer = why_not(q, q, q, awkward_layout("drawn at random", num_tokens=3, num_slots=slots))
    assert answer is None if reason is None else reason in str(answer)


def test_the_cpu_is_refused() -> None:
    q = torch.empty(1, 1, 3, 8)
    assert why_not(q, q, q, awkward_layout("drawn at random", num_tokens=3, num_slots=2)) == (
        "it needs a GPU, and q is on the CPU"
    )
