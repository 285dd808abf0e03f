"""Whole runs, tiny ones: what lies in the folder afterwards, and what a run that cannot be done leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from longtag.errors import UsageError

from .conftest import TINY, run_in_folder

EVERY_STEP = ("train/loss", "memory/peak_rss_gib", "throughput/tokens_per_second", "throughput/step_ms")


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_config_metrics_summary_and_checkpoints(tiny, tmp_path, capsys):
    best = run_in_folder(tiny("memory=balanced"))
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        ".hydra",
        "run_id",
        "metrics.jsonl",
        "summary.json",
        "checkpoints",
        "figures",
    }
    assert {path.name for path in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}

    training = [line for line in lines(folder) if "train/loss" in line]
    assert [line["step"] for line in training] == [0, 1, 2, 3]
    for line in training:
        assert all(line[key] > 0 for key in EVERY_STEP)
    validations = [line for line in lines(folder) if "val/loss" in line]
    assert [line["step"] for line in validations] == [1, 3]
    assert {"val/accuracy", "val/f1_macro", "val/mcc"} <= set(validations[0])

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert (summary["pattern"], summary["implementation"], summary["tokens"]) == ("window", "reference", 64)
    assert summary["best"]["val/f1_macro"] == best == max(line["val/f1_macro"] for line in validations)
    assert summary["val/f1_macro"] == validations[-1]["val/f1_macro"]
    assert "test/accuracy" in summary
    assert "CPU" in summary["device"]
    assert summary["monitor"] == "val/f1_macro"
    assert "error" not in summary

    printed = capsys.readouterr().out
    for text in ("64 in 1 crop of 64", "edges", "density", "reference (", "step 4/4", "test", str(folder)):
        assert text in printed
    assert "\x1b[" not in printed


def test_the_last_step_is_validated_even_if_it_is_no_multiple_of_the_interval(tiny, tmp_path):
    run_in_folder(tiny("trainer.max_steps=3", "callbacks=none"))
    assert [line["step"] for line in lines(tmp_path / "run") if "val/loss" in line] == [1, 2]


def test_accumulated_batches_make_one_step(tiny, tmp_path):
    run_in_folder(tiny("trainer.accumulate_grad_batches=2", "trainer.max_steps=2", "test=false"))
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert (
        lines(tmp_path / "run")[-1]["throughput/tokens_seen"] == 4 * 64
        if "throughput/tokens_seen" in lines(tmp_path / "run")[-1]
        else True
    )


@pytest.mark.parametrize(
    "way",
    [
        ["memory=lean", "memory.tile_tokens=9", "memory.tile_heads=1"],
        ["memory.checkpoint=selective"],
        ["optim.in_backward=true"],
    ],
    ids=["lean", "selective", "in backward"],
)
def test_levers_train_the_same_model(tiny, tmp_path, way):
    options = ("model.position=rotary", "trainer.gradient_clip_val=null", "test=false")
    losses = {}
    for name, more in (("plain", []), ("lever", way)):
        run_in_folder(tiny(*options, *more, f"hydra.runtime.output_dir={tmp_path}/{name}"))
        losses[name] = [(key, line[key]) for line in lines(tmp_path / name) for key in line if key.endswith("/loss")]
    assert len(losses["plain"]) == 4 + 2
    assert [key for key, _ in losses["lever"]] == [key for key, _ in losses["plain"]]
    for (_, ours), (_, theirs) in zip(losses["lever"], losses["plain"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_checkpoint_holds_no_config_objects_and_loads_with_weights_only(tiny, tmp_path):
    run_in_folder(tiny("test=false"))
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert any(name.startswith("model.") for name in checkpoint["state_dict"])


def test_a_model_can_overfit_what_it_sees(tiny, tmp_path):
    run_in_folder(
        tiny("debug=overfit", "tokens=32", "trainer.max_steps=100", "trainer.val_check_interval=100", "test=false")
    )
    losses = [line["train/loss"] for line in lines(tmp_path / "run") if "train/loss" in line]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("option", ["class_weights=balanced", "focal_gamma=2.0", "label_smoothing=0.1"])
def test_each_option_of_the_loss_reaches_it(tiny, tmp_path, option):
    run_in_folder(tiny("trainer.max_steps=1", "test=false", "callbacks=none"))
    plain = lines(tmp_path / "run")[0]["train/loss"]
    run_in_folder(tiny("trainer.max_steps=1", "test=false", "callbacks=none", f"loss.{option}", "resume=never"))
    assert lines(tmp_path / "run")[0]["train/loss"] != plain


def test_a_head_with_more_classes_than_the_data_is_allowed_and_one_with_fewer_is_not(tiny, tmp_path):
    run_in_folder(tiny("classes=7", "trainer.max_steps=1", "test=false"))
    with pytest.raises(UsageError, match="classes=3: the data has 5 labels; give 5 or more, or null"):
        run_in_folder(tiny("classes=3", f"hydra.runtime.output_dir={tmp_path}/other"))
    assert not (tmp_path / "other").exists()


def test_a_source_of_ones_own_needs_a_class_and_a_yaml_and_nothing_else(composed, tmp_path):
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "parity.yaml").write_text("_target_: tests.longtag.toy.Parity\nlength: 200\n")
    options = ("data=parity", "tokens=64", "pattern=window", "logger=none", "trainer.accelerator=cpu")
    steps = ("trainer.max_steps=40", "trainer.val_check_interval=40", "model.d_model=16")
    run_in_folder(composed(f"hydra.searchpath=[file://{tmp_path}/conf]", *options, *steps))
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["data"] == "parity"
    assert summary["test/accuracy"] == 1
    assert summary["test/f1/odd"] == 1


def test_a_source_that_knows_distances_is_scored_by_them(composed, tmp_path):
    options = ("tokens=256", "data.sequences=2", "data.min_distance=20", "pattern=window", "logger=none")
    run_in_folder(
        composed("data=recall", *options, "trainer.accelerator=cpu", "trainer.max_steps=1", "crops.batch_size=2")
    )
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["chance"] == 0.25
    for split in ("val", "test"):
        scores = {name.split("/")[-1] for name in summary if name.startswith(f"{split}/accuracy_at_distance/")}
        assert scores == {"64", "256"}
        assert 0 <= summary[f"{split}/accuracy_at_distance/256"] <= 1


def refused(tmp_path: Path, configs: tuple, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_in_folder(configs)
    assert not (tmp_path / "run").exists()


def test_heads_that_do_not_divide_the_width_are_refused(tiny, tmp_path):
    refused(tmp_path, tiny("model.num_heads=3"), "num_heads=3.*d_model=16")


def test_levers_that_contradict_each_other_are_refused(tiny, tmp_path):
    refused(tmp_path, tiny("memory.checkpoint_every=2"), "memory.checkpoint_every=2: .* give memory.checkpoint=blocks")
    refused(tmp_path, tiny("memory=lean", "memory.checkpoint=selective"), "memory.tile_heads=3: .*memory.checkpoint")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks.device.every_seconds=-1", "^callbacks.device.every_seconds=-1: expected a time above 0 seconds"),
        ("callbacks.progress.plain_every_seconds=-1", "^callbacks.progress.plain_every_seconds=-1: expected 0 or more"),
        (
            "logger=csv logger.csv.flush_every_steps=0",
            "^logger.csv.flush_every_steps=0: expected a number of",
        ),
        (
            "monitor=val/f1",
            "^monitor=val/f1: the validation has no such figure; it has val/loss, val/accuracy",
        ),
        ("trainer.accelerator=foo", "^trainer: .*invalid accelerator"),
        ("trainer.precision=transformer-engine", "^trainer: .*transformer_engine"),
    ],
)
def test_what_watches_stores_or_trains_refuses_its_options_under_their_names(tiny, tmp_path, override, message):
    refused(tmp_path, tiny(*override.split(" ")), message)


def test_a_crop_longer_than_every_block_is_refused(composed, tmp_path):
    refused(tmp_path, composed("tokens=2000000", "logger=none"), "tokens=2000000: no train block is that long")


def test_a_pattern_with_an_impossible_option_is_refused(tiny, tmp_path):
    refused(tmp_path, tiny("pattern.window=-3"), "pattern.window=-3: ")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.zeros((63, 2), dtype=np.int32), "63"),
        (np.zeros((64, 2), dtype=np.float32), "float32"),
        (np.full((64, 2), 64, dtype=np.int32), "64"),
        (np.zeros(64, dtype=np.int32), "shape|dim"),
        (np.zeros((3, 64, 2), dtype=np.int32), "lists for 3 heads, the model has 2; give model.num_heads=3"),
    ],
    ids=["length", "dtype", "range", "rank", "heads"],
)
def test_a_pattern_file_that_does_not_fit_is_refused(tiny, tmp_path, table, message):
    np.save(tmp_path / "table.npy", table)
    refused(tmp_path, tiny("pattern=file", f"pattern.path={tmp_path}/table.npy"), message)


def test_a_missing_genome_is_refused(composed, tmp_path):
    refused(tmp_path, composed("data.fasta=nowhere.fa", "data.gff=nowhere.gff", "logger=none"), "nowhere.fa")


def test_a_failed_run_says_so_in_its_summary(tiny, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("broken step")

    monkeypatch.setattr("longtag.tagger.Tagger.training_step", fail)
    with pytest.raises(RuntimeError, match="broken step"):
        run_in_folder(tiny())
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: broken step")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["monitor=val/accuracy_at_distance/4"], "monitor=.*: the data does not say at what distance; give val/loss"),
        (["data=recall", "monitor=val/accuracy_at_distance/7"], "monitor=.*: distances go up to powers of four, 1, 4"),
    ],
)
def test_a_monitor_by_distance_that_the_validation_will_not_have_is_refused(composed, options, message):
    small = [item for item in TINY if not item.startswith("data")]
    with pytest.raises(UsageError, match=message):
        run_in_folder(composed(*small, *(options if "data=recall" in options else ("data=synthetic", *options))))


def test_nodes_that_are_null_are_left_out(tiny, tmp_path):
    run_in_folder(tiny("callbacks.progress=null", "callbacks.memory_timeline=null", "test=false"))
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "completed"
