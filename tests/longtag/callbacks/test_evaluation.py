"""figures/evaluation.json of a whole run, held against a second, direct pass over the test crops."""

import json

import pytest
import torch

from longtag.assembly import assemble
from longtag.callbacks.evaluation import Evaluation
from longtag.errors import UsageError
from longtag.folder import RunFolder

from ..conftest import run_in_folder


def test_what_a_run_writes_is_what_a_direct_pass_over_its_test_crops_gives(tiny, tmp_path):
    options = ("callbacks.evaluation.num_bins=5", "callbacks.evaluation.stretch_tokens=16")
    config, hydra_config = tiny("trainer.max_steps=2", *options)
    run_in_folder((config, hydra_config))
    written = json.loads((tmp_path / "run/figures/evaluation.json").read_text())

    with RunFolder(tmp_path / "other") as folder:
        parts = assemble(config, hydra_config, folder)
    best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    parts.tagger.load_state_dict(best["state_dict"])
    crops = list(parts.crops.test_dataloader())
    with torch.no_grad():
        chances = torch.cat([parts.tagger.eval().model(crop["inputs"]) for crop in crops]).softmax(-1)
    labels = torch.cat([crop["labels"] for crop in crops])
    sure, classes = chances.max(-1)
    right = classes == labels

    assert written["class_names"] == [f"class {number}" for number in range(5)]
    assert written["labelled"] == labels.flatten().bincount(minlength=5).tolist()
    assert written["predicted"] == classes.flatten().bincount(minlength=5).tolist()
    assert written["right"] == labels[right].bincount(minlength=5).tolist()
    assert written["confusion"] == [
        [int(((labels == label) & (classes == guess)).sum()) for guess in range(5)] for label in range(5)
    ]
    in_bin = [((sure >= low / 5) & (sure < (low + 1) / 5)) for low in range(5)]
    assert written["calibration"]["count"] == [int(chosen.sum()) for chosen in in_bin]
    error = sum(abs(float((sure[chosen] - right[chosen].float()).sum())) for chosen in in_bin) / labels.numel()
    assert written["calibration"]["expected_calibration_error"] == pytest.approx(error, rel=1e-5)
    for stretch in written["stretches"]:
        rows = slice(stretch["start"], stretch["start"] + 16)
        assert unrolled(stretch["labels"]) == labels[stretch["crop"], rows].tolist()
        assert unrolled(stretch["predictions"]) == classes[stretch["crop"], rows].tolist()
        assert stretch["confidence"] == pytest.approx(sure[stretch["crop"], rows].tolist(), abs=1e-4)
        assert stretch["accuracy"] == pytest.approx(float(right[stretch["crop"], rows].float().mean()))


def unrolled(runs: list[list[int]]) -> list[int]:
    return [label for label, count in runs for _ in range(count)]


def test_a_matrix_of_many_classes_is_left_out(tiny, tmp_path):
    run_in_folder(tiny("trainer.max_steps=1", "data.num_classes=101"))
    written = json.loads((tmp_path / "run/figures/evaluation.json").read_text())
    assert written["confusion"] is None
    assert sum(written["labelled"]) == 64


def test_options_that_cannot_be_used_are_refused():
    with pytest.raises(UsageError, match=r"callbacks.evaluation.num_bins=1: expected 2 or more"):
        Evaluation(num_bins=1)
