"""What the monitors write: the figures of a run are what they say they are, and docs/monitoring.md lists every key."""

import json
import re
from pathlib import Path

import pytest
import torch

from longtag.tagger import Tagger

from ..conftest import CONF, run_in_folder

GENOME = (
    "tokens=300",
    "model.d_model=16",
    "model.d_ff=32",
    "pattern=window",
    "logger=none",
    "trainer.accelerator=cpu",
    "debug=fast",
    "trainer.max_steps=3",
)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def documented() -> list[str]:
    """The keys of the tables in docs/monitoring.md; <...> stands for any text."""
    text = (CONF.parent / "docs" / "monitoring.md").read_text()
    return [key for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for key in re.findall(r"`([^`]+)`", row)]


def test_every_logged_key_is_documented(composed, tmp_path):
    run_in_folder(composed(*GENOME, "callbacks.non_finite.action=skip"))
    patterns = [re.sub("<[^>]+>", ".+", re.escape(key).replace(r"\<", "<").replace(r"\>", ">")) for key in documented()]
    logged = {key for line in lines(tmp_path / "run") for key in line} - {"step", "time"}
    assert {"train/loss_coarse", "val/f1/intergenic", "optim/skipped_steps", "data/wait_share"} <= logged
    assert [key for key in sorted(logged) if not any(re.fullmatch(pattern, key) for pattern in patterns)] == []


def test_the_loss_appears_under_its_track_as_well(composed, tmp_path):
    run_in_folder(composed(*GENOME, "data.track=replichore", "test=false"))
    training = [line for line in lines(tmp_path / "run") if "train/loss" in line]
    assert len(training) == 3
    assert all(line["train/loss_replichore"] == line["train/loss"] for line in training)


@pytest.mark.parametrize("clip", ["0.01", "null"])
def test_the_gradient_norm_is_that_before_clipping(tiny, tmp_path, monkeypatch, clip):
    norms = []

    def spy(self, optimizer):
        gradients = [weight.grad.flatten() for weight in self.parameters() if weight.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))

    monkeypatch.setattr(Tagger, "on_before_optimizer_step", spy)
    run_in_folder(tiny(f"trainer.gradient_clip_val={clip}", "test=false"))
    logged = [line["optim/gradient_norm"] for line in lines(tmp_path / "run") if "train/loss" in line]
    assert logged == pytest.approx(norms, rel=1e-5)
    assert min(norms) > 0.01


def test_with_steps_in_backward_there_is_no_gradient_norm(tiny, tmp_path):
    run_in_folder(tiny("optim.in_backward=true", "trainer.gradient_clip_val=null", "test=false"))
    assert all("optim/gradient_norm" not in line for line in lines(tmp_path / "run"))
