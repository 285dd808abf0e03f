"""The report that a run writes by itself at its end."""

import json

import pytest
import wandb
from lightning.pytorch.loggers import WandbLogger

from longtag.report import end_of_run
from longtag.report.end_of_run import report_run

from ..conftest import run_in_folder
from . import fake


def test_a_run_ends_with_its_report_and_the_same_figures_in_an_offline_wandb_run(tiny, tmp_path):
    run_in_folder(tiny("report=true", "logger=wandb", "logger.wandb.mode=offline"))
    folder = tmp_path / "run"
    assert (folder / "report.html").is_file()
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"learning_curve", "confusion_matrix", "class_scores", "calibration", "example_stretches"} <= names
    (files,) = folder.glob("wandb/offline-run-*/files")
    logged = [path.name for path in files.glob("media/images/report/*.png")]
    assert {name.rsplit("_", 2)[0] for name in logged} == names
    (table,) = files.glob("media/table/report/scores*.json")
    rows = json.loads(table.read_text())["data"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test/accuracy"] in next(row for row in rows if row[0] == "accuracy")


def test_a_run_ends_with_the_same_figures_in_tensorboard(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import (  # pyright: ignore[reportMissingImports]
        event_accumulator,
    )

    run_in_folder(tiny("report=true", "logger=tensorboard"))
    events = event_accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"), {"images": 0}).Reload()
    names = {path.stem for path in (tmp_path / "run/figures").glob("*.png")}
    assert set(events.Tags()["images"]) == {f"report/{name}" for name in names}
    assert [image.step for image in events.Images("report/confusion_matrix")] == [4]
    assert "report/scores/text_summary" in events.Tags()["tensors"]


def test_a_run_does_not_fail_with_its_report(tiny, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("no font")

    monkeypatch.setattr(end_of_run, "describe", fail)
    with pytest.warns(UserWarning, match=r"report could not be made \(RuntimeError: no font\).*python -m longtag"):
        run_in_folder(tiny("report=true", "trainer.max_steps=1"))
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "completed"


def test_figures_are_logged_after_the_last_step_of_the_run(tmp_path):
    folder = fake.write_run(tmp_path / "0", tokens=2000, steps=5)
    logger = WandbLogger(save_dir=tmp_path, id="abc", offline=True, settings=wandb.Settings(silent=True))
    logger.log_metrics({"val/loss": 1.0}, step=5)
    report_run(folder, [logger], 5)
    assert logger.experiment.summary["val/loss"] == 1.0
    assert "report/calibration" in dict(logger.experiment.summary)
    logger.experiment.finish()
