"""A sweep's comparison where its runs log: what W&B and TensorBoard hold of it, and what is left when they fail."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.errors import CommError

from longtag.report.__main__ import main
from longtag.report.end_of_sweep import report_sweep

from ..conftest import CONF
from ..loggers.offline import history, offline_files, records, summary
from . import fake

FIGURES = {"trade_off", "learning_curves", "f1_by_class", "memory_per_step", "patterns"}


def sweep_with(folder: Path, *loggers: str, failed: bool = True, **options: Any) -> Path:
    """Two jobs, the second of which failed, with the config of a sweep that logs so."""
    fake.write_run(folder / "0", tokens=2000, steps=5)
    fake.write_jobs(folder, [fake.job(0, ["pattern=window"]), fake.job(1, ["pattern=dense"], "failed", "no memory")])
    nodes = {}
    for name in loggers:
        nodes |= yaml.safe_load((CONF / "logger" / f"{name}.yaml").read_text())
        if name == "wandb":
            nodes["wandb"] |= {"mode": "offline", **options}
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"logger": nodes, "tokens": 2000}))
    return folder


def complete(folder: Path) -> None:
    """The second job is run again, and ends well."""
    fake.write_run(folder / "1", pattern="dilated", tokens=2000, steps=5)
    fake.write_jobs(folder, [fake.job(0, ["pattern=window"]), fake.job(1, ["pattern=dilated"])])


def kept(path: Path) -> dict[str, Any]:
    """The last record of each kind."""
    return {kind: getattr(record, kind) for record in records(path) if (kind := record.WhichOneof("record_type"))}


def test_the_comparison_is_one_run_of_the_group_with_all_figures_and_tables(tmp_path):
    folder = sweep_with(tmp_path / "mine", "wandb", project="genomes")
    lines = report_sweep(folder)
    assert lines == [f"report: {folder}/report.html", f"report for W&B: wandb sync {folder}/wandb"]
    (path,) = offline_files(folder, 1)
    run = kept(path)["run"]
    assert (run.project, run.run_group, run.display_name, run.job_type) == ("genomes", "mine", "mine", "report")
    (row,) = history(folder, 1)
    pngs = {path.stem for path in (folder / "figures").glob("*.png")}
    assert pngs >= FIGURES
    assert {name.split(".")[0] for name in row if "/" in name} == {
        f"report/{name}" for name in [*pngs, "comparison", "runs", "unfinished"]
    }
    media = path.parent / "files"
    assert all((media / row[f"report/{name}.path"]).is_file() for name in pngs)
    table = json.loads((media / row["report/comparison.path"]).read_text())
    assert [line[0] for line in table["data"]] == ["window", "dense"]
    (unfinished,) = json.loads((media / row["report/unfinished.path"]).read_text())["data"]
    assert unfinished[-1] == "no memory"
    assert wandb.run is None


def test_a_resumed_sweep_goes_on_in_the_same_wandb_run(tmp_path):
    folder = sweep_with(tmp_path / "mine", "wandb")
    report_sweep(folder)
    complete(folder)
    time.sleep(1)  # W&B names its folders by the second
    report_sweep(folder)
    first, second = sorted(offline_files(folder, 2), key=lambda path: path.stat().st_mtime)
    assert first.name == second.name
    rows = history(folder, 2)
    assert sorted(row["_step"] for row in rows) == [0, 1]
    assert [summary(path)["jobs/failed"] for path in (first, second)] == [1, 0]
    last = max(rows, key=lambda row: row["_step"])
    assert last["report/unfinished.nrows"] == 0  # what failed the last time would stay otherwise


def test_a_group_of_ones_own_holds_the_comparison_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the process of W&B that other tests have started is not
    folder = sweep_with(Path("mine"), "wandb", group="ours")
    report_sweep(folder)
    run = kept(offline_files(folder, 1)[0])["run"]
    assert (run.run_group, run.display_name) == ("ours", "mine")


def test_where_the_sweeper_wrote_no_config_that_of_the_runs_counts(tmp_path):
    folder = sweep_with(tmp_path / "mine", "wandb")
    config = yaml.safe_load((folder / "0/.hydra/config.yaml").read_text())
    config["logger"] = yaml.safe_load((folder / "multirun.yaml").read_text())["logger"]
    (folder / "0/.hydra/config.yaml").write_text(yaml.safe_dump(config))
    (folder / "multirun.yaml").unlink()
    assert len(report_sweep(folder)) == 2


def test_tensorboard_has_the_figures_as_images_and_the_tables_as_text(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import (  # pyright: ignore[reportMissingImports]
        event_accumulator,
    )

    folder = sweep_with(tmp_path / "mine", "tensorboard")
    assert report_sweep(folder)[1:] == [f"report in TensorBoard: tensorboard --logdir {folder}"]
    report_sweep(folder)
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"), {"images": 0, "tensors": 0}).Reload()
    assert set(events.Tags()["images"]) == {f"report/{path.stem}" for path in (folder / "figures").glob("*.png")}
    assert [image.step for image in events.Images("report/trade_off")] == [0, 1]
    texts = events.Tensors("report/comparison/text_summary")
    assert "| dense | 1\N{NO-BREAK SPACE}failed |" in texts[-1].tensor_proto.string_val[0].decode()
    assert not (folder / "wandb").exists()


@pytest.mark.parametrize("loggers", [(), ("none",), ("csv",)])
def test_without_wandb_and_tensorboard_nothing_but_the_report_is_written(tmp_path, loggers):
    folder = sweep_with(tmp_path / "mine", *loggers)
    before = {path.name for path in folder.iterdir()}
    assert report_sweep(folder) == [f"report: {folder}/report.html"]
    assert {path.name for path in folder.iterdir()} - before == {"report.html", "report.md", "report.csv", "figures"}


def unreachable(**options: Any) -> None:
    raise CommError("no route to host")


def test_the_report_outlives_an_error_of_wandb_and_the_next_try_logs_it(tmp_path, monkeypatch, capsys):
    folder = sweep_with(tmp_path / "mine", "wandb")
    with monkeypatch.context() as broken:
        broken.setattr(wandb, "init", unreachable)
        lines = report_sweep(folder)
        assert main([str(folder), "--log"]) == 1
    assert lines[1] == (
        "the report is not logged: CommError: no route to host; "
        f"python -m longtag.report {folder} --log tries again"
    )  # fmt: skip
    assert "error: the report is not logged: CommError: no route to host" in capsys.readouterr().err
    assert (folder / "report.html").is_file()
    known = json.loads((folder / "logged_report.json").read_text())["run_id"]
    assert main([str(folder), "--log"]) == 0
    assert f"report for W&B: wandb sync {folder}/wandb" in capsys.readouterr().out
    assert [path.stem for path in offline_files(folder, 1)] == [f"run-{known}"]


def test_the_command_logs_nothing_unless_it_is_asked_to(tmp_path, capsys):
    folder = sweep_with(tmp_path / "mine", "wandb")
    assert main([str(folder)]) == 0
    assert not (folder / "wandb").exists()
    assert not (folder / "logged_report.json").exists()
    assert main([str(folder / "0"), "--log"]) == 2
    assert capsys.readouterr().err.startswith("error: --log: expected the folder of one sweep")
    assert not (folder / "0/report.html").exists()


def test_the_command_says_when_there_is_nowhere_to_log_to(tmp_path, capsys):
    assert main([str(sweep_with(tmp_path / "mine", "csv")), "--log"]) == 0
    assert "logged nowhere" in capsys.readouterr().out
