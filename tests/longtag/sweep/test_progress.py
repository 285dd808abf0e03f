import json

from longtag.sweep.progress import progress


def test_progress_is_the_last_whole_line_of_training(tmp_path):
    assert progress(tmp_path, 90) == "starting"
    lines = [{"step": step, "train/loss": 2 - step / 100, "throughput/tokens_per_second": 12e3} for step in range(50)]
    text = "\n".join(map(json.dumps, [*lines, {"step": 49, "val/loss": 1.0}]))
    (tmp_path / "metrics.jsonl").write_text(text + '\n{"step": 50, "train/lo')
    assert progress(tmp_path, 90) == "step 50/90  loss 1.5100  12k tokens/s"


def test_a_loss_that_is_not_finite_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "train/loss": null}\n')
    assert progress(tmp_path, 90) == "step 1/90"


def test_the_beginning_of_a_long_file_is_not_read(tmp_path):
    line = json.dumps({"step": 7, "train/loss": 1.0})
    (tmp_path / "metrics.jsonl").write_text("x" * 100_000 + "\n" + line + "\n")
    assert progress(tmp_path, 90) == "step 8/90  loss 1.0000"
