"""A run that was stopped and goes on is the run that was never stopped."""

import json
from pathlib import Path

import pytest
import torch

from longtag.errors import UsageError
from longtag.optim import Optimization

from .conftest import run_in_folder

STEPS = ("model.dropout=0.2", "trainer.val_check_interval=3", "test=false")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]


@pytest.mark.parametrize(
    "way",
    [
        ["trainer.accumulate_grad_batches=1"],
        ["trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"],
        ["optim.in_backward=true", "trainer.gradient_clip_val=null", "memory=lean", "memory.tile_tokens=10"],
        ["trainer.precision=bf16-true", "optim.update=stochastic", "optim.states=bfloat16"],
        ["trainer.precision=bf16-true", "optim.update=compensated", "optim.states=8bit", "model.d_model=64"],
        ["callbacks=averaging", "callbacks.averaging.decay=0.5"],
    ],
    ids=["plain", "accumulated", "in backward", "stochastic", "8 bits", "averaged"],
)
def test_resuming_gives_the_weights_of_an_uninterrupted_run(tiny, tmp_path, way):
    if "optim.states=8bit" in way:
        pytest.importorskip("torchao", reason="the extra lowbit is not installed")
    # A constant rate, so that the schedule does not depend on the number of steps that the first half was given.
    options = (*STEPS, "optim.schedule=constant", "optim.warmup_steps=2", *way)
    run_in_folder(tiny(*options, "trainer.max_steps=6", f"hydra.runtime.output_dir={tmp_path}/straight"))
    run_in_folder(tiny(*options, "trainer.max_steps=4", f"hydra.runtime.output_dir={tmp_path}/halves"))
    run_in_folder(tiny(*options, "trainer.max_steps=6", f"hydra.runtime.output_dir={tmp_path}/halves"))

    assert losses(tmp_path / "halves") == losses(tmp_path / "straight")
    expected = weights(tmp_path / "straight")
    resumed = weights(tmp_path / "halves")
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())


def test_a_resumed_run_keeps_its_best_and_counts_on(tiny, tmp_path):
    run_in_folder(tiny(*STEPS, "trainer.max_steps=3"))
    first = json.loads((tmp_path / "run/summary.json").read_text())
    run_in_folder(tiny(*STEPS, "trainer.max_steps=6"))
    second = json.loads((tmp_path / "run/summary.json").read_text())
    assert second["throughput/tokens_seen"] == 2 * first["throughput/tokens_seen"] == 6 * 64
    assert second["best"]["val/f1_macro"] >= first["best"]["val/f1_macro"]
    assert [step for step, _ in losses(tmp_path / "run")] == list(range(6))


def test_resume_never_starts_afresh(tiny, tmp_path):
    run_in_folder(tiny(*STEPS, "trainer.max_steps=3"))
    before = losses(tmp_path / "run")
    run_in_folder(tiny(*STEPS, "trainer.max_steps=3", "resume=never"))
    assert losses(tmp_path / "run") == before


def test_a_finished_run_given_again_only_repeats_its_test(tiny, tmp_path):
    run_in_folder(tiny("trainer.max_steps=2"))
    before = weights(tmp_path / "run")
    run_in_folder(tiny("trainer.max_steps=2"))
    after = weights(tmp_path / "run")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert len(losses(tmp_path / "run")) == 2
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("completed", 2)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "test/loss" in row] == [1]


def test_a_checkpoint_that_cannot_be_gone_on_from_leaves_the_folder_as_it_was(tiny, tmp_path):
    run_in_folder(tiny(*STEPS, "trainer.max_steps=2"))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"checkpoints/last.ckpt: of another model, .*resume=never"):
        run_in_folder(tiny(*STEPS, "trainer.max_steps=4", "model.d_ff=64"))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    (tmp_path / "junk.ckpt").write_text("junk")
    with pytest.raises(UsageError, match=r"junk.ckpt: missing, damaged"):
        run_in_folder(tiny(f"hydra.runtime.output_dir={tmp_path}/other", f"resume={tmp_path}/junk.ckpt"))
    assert not (tmp_path / "other").exists()


def test_a_best_checkpoint_that_is_damaged_is_named_when_the_test_needs_it(tiny, tmp_path):
    run_in_folder(tiny("trainer.max_steps=2"))
    (tmp_path / "run/checkpoints/best.ckpt").write_text("junk")
    with pytest.raises(UsageError, match=r"best.ckpt: .*trained but not tested; give test=false"):
        run_in_folder(tiny("trainer.max_steps=2"))


def test_another_checkpoint_can_be_named(tiny, tmp_path):
    run_in_folder(tiny(*STEPS, "trainer.max_steps=3", f"hydra.runtime.output_dir={tmp_path}/first"))
    resume = f"resume={tmp_path}/first/checkpoints/last.ckpt"
    run_in_folder(tiny(*STEPS, "trainer.max_steps=4", f"hydra.runtime.output_dir={tmp_path}/second", resume))
    assert [step for step, _ in losses(tmp_path / "second")] == [3]


def test_options_of_the_optimizer_that_are_given_again_hold(tiny, tmp_path):
    constant = (*STEPS, "optim.schedule=constant", "optim.warmup_steps=0")
    run_in_folder(tiny(*constant, "trainer.max_steps=3", "optim.learning_rate=1e-3"))
    changed = ("optim.learning_rate=1e-5", "optim.weight_decay=0.5", "optim.betas=[0.5,0.6]", "optim.eps=1e-6")
    run_in_folder(tiny(*constant, "trainer.max_steps=6", *changed))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rates = [row["optim/learning_rate"] for row in rows if "optim/learning_rate" in row]
    assert rates == pytest.approx([1e-3] * 3 + [1e-5] * 3)
    (optimizer,) = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["optimizer_states"]
    decayed, plain = optimizer["param_groups"]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.5, 0.0)
    assert all((tuple(group["betas"]), group["eps"]) == ((0.5, 0.6), 1e-6) for group in (decayed, plain))


def test_more_steps_go_on_with_the_rate_of_the_longer_schedule(tiny, tmp_path):
    options = (*STEPS, "optim.warmup_steps=0")
    run_in_folder(tiny(*options, "trainer.max_steps=3"))
    run_in_folder(tiny(*options, "trainer.max_steps=6"))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rates = [row["optim/learning_rate"] for row in rows if "optim/learning_rate" in row]
    longer = Optimization(learning_rate=rates[0], warmup_steps=0)
    assert rates[3:] == pytest.approx([rates[0] * longer.factor(step, 6) for step in (3, 4, 5)])


def test_a_run_with_a_mean_of_its_weights_does_not_go_on_without_it(tiny, tmp_path):
    run_in_folder(tiny(*STEPS, "trainer.max_steps=3", "callbacks=averaging"))
    with pytest.raises(UsageError, match=r"last.ckpt: of a run that keeps a mean .*give callbacks=averaging again"):
        run_in_folder(tiny(*STEPS, "trainer.max_steps=6"))
