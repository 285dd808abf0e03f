"""The split of the peak in whole runs, over an allocator that counts the bytes of tensors alive on the CPU."""

import itertools
import json
from pathlib import Path

import pytest
import torch

import longtag.callbacks.memory as monitor
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.peak import GIB, Allocator

from ..conftest import run_in_folder

PARTS = tuple(f"memory/{part}_gib" for part in ("weights", "gradients", "optimizer_states", "activations", "temporary"))
# Attention of one key keeps what the reference takes for itself, which is not seen, small.
BIG = (
    "tokens=512",
    "model.num_layers=4",
    "model.d_model=32",
    "model.d_ff=64",
    "trainer.max_steps=2",
    "trainer.limit_val_batches=0",
    "test=false",
)


def steps_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def counted(monkeypatch, tiny, tmp_path):
    """A function from overrides to the lines of metrics.jsonl of a run of two steps over the counting allocator."""

    numbers = itertools.count()

    def run_counted(*overrides: str) -> list[dict[str, float]]:
        live = LiveBytes()

        def reset(_: torch.device) -> None:
            live.peak = live.now

        monkeypatch.setattr(monitor, "has_allocator", lambda device: True)
        monkeypatch.setattr(monitor, "reset_peak", reset)
        monkeypatch.setattr(monitor, "read_allocator", lambda _: Allocator(live.now, live.peak, live.peak, 0, 0))
        folder = tmp_path / ("run" if not overrides else f"run{next(numbers)}")
        configs = tiny(*BIG, f"hydra.runtime.output_dir={folder}", *overrides)
        with live:
            run_in_folder(configs)
        return steps_of(folder)

    return run_counted


def parameters(folder: Path) -> int:
    return json.loads((folder / "summary.json").read_text())["parameters"]


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("memory=balanced",),
        ("trainer.accumulate_grad_batches=2",),
        ("optim.in_backward=true", "trainer.gradient_clip_val=null"),
    ],
    ids=["fast", "balanced", "accumulated", "in backward"],
)
def test_the_parts_sum_to_the_peak_at_every_step(counted, overrides):
    for line in counted(*overrides):
        assert sum(line[part] for part in PARTS) == pytest.approx(line["memory/peak_allocated_gib"], rel=1e-5)
        assert all(line[part] >= 0 for part in PARTS)


def test_weights_and_optimizer_states_are_those_of_adamw(counted, tmp_path):
    first, second = counted()
    weights = 4 * parameters(tmp_path / "run") / GIB
    for line in (first, second):
        assert line["memory/weights_gib"] == pytest.approx(weights, rel=5e-3)
    assert first["memory/optimizer_states_gib"] == 0
    assert second["memory/optimizer_states_gib"] == pytest.approx(2 * weights, rel=1e-2)


def test_recomputing_blocks_shrinks_the_activations_and_not_the_other_parts(counted):
    fast, balanced = counted()[-1], counted("memory=balanced")[-1]
    tensor = 512 * 32 * 4 / GIB
    assert fast["memory/activations_gib"] > 40 * tensor
    # What enters each of four blocks, and what the head and the loss keep.
    assert 4 * tensor < balanced["memory/activations_gib"] < 8 * tensor
    for part in ("memory/weights_gib", "memory/optimizer_states_gib"):
        assert fast[part] == balanced[part]


def test_gradients_of_batches_before_stand_beside_the_activations(counted):
    plain, accumulated = counted()[-1], counted("trainer.accumulate_grad_batches=2")[-1]
    weights = accumulated["memory/weights_gib"]
    # At the start of backward: of this batch there are none yet, of the batch before all.
    assert plain["memory/gradients_gib"] < 0.2 * weights
    assert accumulated["memory/gradients_gib"] == pytest.approx(weights, rel=5e-3)


def test_of_a_wide_model_and_few_tokens_the_peak_is_at_the_end_of_backward_with_all_gradients(counted):
    wide = ("tokens=8", "model.d_model=128", "model.d_ff=512")
    line = counted(*wide)[-1]
    assert line["memory/gradients_gib"] == pytest.approx(line["memory/weights_gib"], rel=0.05)
    line = counted(*wide, "optim.in_backward=true", "trainer.gradient_clip_val=null")[-1]
    assert line["memory/gradients_gib"] == 0


def test_hooks_are_gone_after_the_run(counted, monkeypatch):
    handles, watched, register = [], [], monitor.when_backward_leaves

    def keep(blocks, call):
        watched.append(blocks)  # or the hooks would be gone with the model
        handles.extend(register(blocks, call))
        return list(handles)

    monkeypatch.setattr(monitor, "when_backward_leaves", keep)
    counted()
    assert len(handles) == 4
    assert not any(handle.id in handle.hooks_dict_ref() for handle in handles)


def test_on_the_cpu_what_is_counted_and_the_rest_sum_to_resident_memory(tiny, tmp_path):
    run_in_folder(tiny(*BIG))
    _, line = steps_of(tmp_path / "run")
    weights = 4 * parameters(tmp_path / "run") / GIB
    counted_parts = [line[f"memory/{part}_gib"] for part in ("weights", "gradients", "optimizer_states")]
    assert counted_parts == pytest.approx([weights, weights, 2 * weights], rel=1e-2)
    assert sum(counted_parts) + line["memory/rest_gib"] == pytest.approx(line["memory/peak_rss_gib"], rel=1e-6)
    assert "memory/activations_gib" not in line


@pytest.mark.gpu
@pytest.mark.parametrize("levers", ["fast", "balanced"])
def test_on_a_gpu_the_parts_sum_to_the_peak_of_the_allocator(tiny, tmp_path, levers):
    on_gpu = ("trainer.accelerator=gpu", "tokens=20000", "model.d_model=256", "model.d_ff=512", "model.num_layers=6")
    run_in_folder(tiny(*BIG, *on_gpu, f"memory={levers}", "trainer.max_steps=3"))
    line = steps_of(tmp_path / "run")[-1]
    weights = 4 * parameters(tmp_path / "run") / GIB
    assert sum(line[part] for part in PARTS) == pytest.approx(line["memory/peak_allocated_gib"], rel=1e-5)
    assert line["memory/weights_gib"] == pytest.approx(weights, rel=5e-3)
    assert line["memory/optimizer_states_gib"] == pytest.approx(2 * weights, rel=1e-2)
    assert line["memory/allocator_retries"] == line["memory/allocator_failures"] == 0
    tensor = 20_000 * 256 * 2 / GIB
    blocks_keep = line["memory/activations_gib"] / tensor / 6
    assert 5 < blocks_keep < 30 if levers == "fast" else 0.9 < blocks_keep < 4.5
