import json
import pickle
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

import longtag.callbacks.memory_timeline as module
from longtag.errors import UsageError
from longtag.memory.timeline import Timeline
from longtag.tagger import Tagger

from ..conftest import run_in_folder

SHAPE = ("tokens=256", "model.num_layers=3", "model.d_model=32", "model.d_ff=64")


@pytest.fixture
def drawn(monkeypatch) -> list[Timeline]:
    """The timelines that are drawn, in addition to what is written."""
    timelines, draw = [], module.draw

    def keep(timeline, title, path):
        timelines.append(timeline)
        draw(timeline, title, path)

    monkeypatch.setattr(module, "draw", keep)
    return timelines


def runs(timeline: Timeline, kind: str) -> list[int | str | None]:
    return [run.part for run in sorted(timeline.runs, key=lambda run: run.start_ns) if run.kind == kind]


def between(timeline: Timeline, run) -> torch.Tensor:
    inside = (timeline.times_ns >= run.start_ns) & (timeline.times_ns < run.end_ns)
    return torch.from_numpy(timeline.allocated[inside])


def test_debug_memory_draws_the_third_step_with_every_block(tiny, tmp_path, drawn, capsys):
    run_in_folder(tiny("debug=memory", *SHAPE))
    (timeline,) = drawn
    assert [phase.kind for phase in timeline.phases] == ["forward", "backward", "optimizer"]
    assert runs(timeline, "forward") == [0, 1, 2, "head"]
    assert runs(timeline, "backward") == ["head", 2, 1, 0]
    assert runs(timeline, "recompute") == []
    figure = tmp_path / "run/figures/memory_step_3.png"
    assert imread(figure).shape[1] >= 1000
    assert str(figure) in capsys.readouterr().out
    assert [path.name for path in figure.parent.iterdir()] == ["memory_step_3.png"]


def test_the_curve_stands_on_weights_gradients_and_states_and_comes_back_to_them(tiny, tmp_path, drawn):
    run_in_folder(tiny("debug=memory", *SHAPE))
    (timeline,) = drawn
    weights = 4 * json.loads((tmp_path / "run/summary.json").read_text())["parameters"]
    assert timeline.weights == pytest.approx(weights, rel=1e-2)
    assert timeline.optimizer_states == pytest.approx(2 * weights, rel=1e-2)
    batch = 256 * (64 * 4 + 8)
    assert timeline.allocated[0] == pytest.approx(3 * weights + batch, rel=0.1)
    assert timeline.allocated[-1] == pytest.approx(4 * weights + batch, rel=0.1)
    assert timeline.gradients[0] == 0
    assert timeline.gradients[-1] == pytest.approx(weights, rel=1e-3)


def test_recomputed_blocks_show_as_the_teeth_of_a_saw(tiny, drawn):
    run_in_folder(tiny("debug=memory", *SHAPE, "memory=balanced"))
    (timeline,) = drawn
    assert runs(timeline, "recompute") == [2, 1, 0]
    tooth = 256 * 32 * 4
    for run in timeline.runs:
        if run.kind == "backward" and run.part != "head":
            of_block = between(timeline, run)
            assert of_block.max() > of_block[0] + 8 * tooth
            assert of_block.max() > of_block[-1] + 8 * tooth


def test_a_step_without_recomputation_climbs_in_forward_and_falls_in_backward(tiny, drawn):
    run_in_folder(tiny("debug=memory", *SHAPE))
    (timeline,) = drawn
    starts = {(run.kind, run.part): int(between(timeline, run)[0]) for run in timeline.runs}
    assert starts["forward", 0] < starts["forward", 1] < starts["forward", 2] < starts["forward", "head"]
    assert starts["backward", 2] > starts["backward", 1] > starts["backward", 0]


def test_all_batches_of_an_accumulated_step_are_drawn(tiny, drawn):
    run_in_folder(tiny("debug=memory", *SHAPE, "trainer.accumulate_grad_batches=2"))
    (timeline,) = drawn
    assert [phase.kind for phase in timeline.phases] == ["forward", "backward", "optimizer"] * 2


def test_without_a_step_nothing_is_drawn_or_hooked(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "when_backward_leaves", None)
    run_in_folder(tiny("trainer.max_steps=1", "test=false"))
    assert not (tmp_path / "run/figures").exists()


@pytest.mark.parametrize("step", [0, 5])
def test_a_step_that_the_run_does_not_have_is_refused(tiny, tmp_path, step):
    with pytest.raises(UsageError, match=rf"callbacks.memory_timeline.step={step}: .*from 1 to trainer.max_steps=4"):
        run_in_folder(tiny(f"callbacks.memory_timeline.step={step}"))
    assert not (tmp_path / "run").exists()


def fail_at_third_step(monkeypatch, message: str) -> None:
    steps, training_step = [], Tagger.training_step

    def fail(self, batch, batch_idx):
        steps.append(training_step(self, batch, batch_idx))
        if len(steps) == 3:
            raise RuntimeError(message)
        return steps[-1]

    monkeypatch.setattr(Tagger, "training_step", fail)


def test_memory_that_runs_out_while_it_is_watched_is_drawn_up_to_there(tiny, tmp_path, drawn, monkeypatch):
    fail_at_third_step(monkeypatch, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    with pytest.raises(RuntimeError, match="can't allocate"):
        run_in_folder(tiny("debug=memory", *SHAPE))
    (timeline,) = drawn
    assert [phase.kind for phase in timeline.phases] == ["forward"]
    assert runs(timeline, "forward") == [0, 1, 2]
    assert [path.name for path in (tmp_path / "run/figures").iterdir()] == ["out_of_memory.png"]
    assert torch._C._len_torch_dispatch_stack() == 0


def test_another_failure_draws_nothing_and_ends_the_counting(tiny, tmp_path, monkeypatch):
    fail_at_third_step(monkeypatch, "something else")
    with pytest.raises(RuntimeError, match="something else"):
        run_in_folder(tiny("debug=memory", *SHAPE))
    assert not (tmp_path / "run/figures").exists()
    assert torch._C._len_torch_dispatch_stack() == 0


@pytest.mark.gpu
def test_on_a_gpu_the_curve_is_the_allocators_and_its_snapshot_lies_beside(tiny, tmp_path, drawn):
    run_in_folder(tiny("debug=memory", *SHAPE, "memory=balanced", "tokens=20000", "trainer.accelerator=gpu"))
    (timeline,) = drawn
    assert runs(timeline, "recompute") == [2, 1, 0]
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert timeline.peak / 2**30 == pytest.approx(line["memory/peak_allocated_gib"], rel=0.05)
    snapshot = pickle.loads((tmp_path / "run/figures/memory_step_3.pickle").read_bytes())
    # Not those of the steps before, which are kept without.
    assert any(entry.get("frames") for entry in snapshot["device_traces"][0] if entry["action"] == "alloc")


@pytest.mark.gpu
def test_on_a_gpu_out_of_memory_leaves_the_figure_and_the_snapshot_of_that_moment(tiny, tmp_path, drawn):
    wide = ("tokens=200000", "model.num_layers=8", "model.d_model=512", "model.d_ff=2048", "test=false")
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(4 * 2**30 / total)
    try:
        with pytest.raises(RuntimeError, match="memory"):
            run_in_folder(tiny(*wide, "trainer.accelerator=gpu"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    (timeline,) = drawn
    assert timeline.peak > 2 * 2**30
    assert timeline.phases[-1].kind in ("forward", "backward")
    snapshot = pickle.loads((tmp_path / "run/figures/out_of_memory.pickle").read_bytes())
    assert "oom" in {entry["action"] for entry in snapshot["device_traces"][0][-10:]}
    assert Path(tmp_path / "run/figures/out_of_memory.png").is_file()
