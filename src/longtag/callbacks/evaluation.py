"""figures/evaluation.json: what the report of a run shows of its test, gathered without keeping logits."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from longtag.errors import UsageError
from longtag.metrics import Calibration, TokenMetrics
from longtag.metrics.stretches import Example, ExampleStretches
from longtag.tagger import Batch, Tagger
from sparse_attention.pictures.file import write_whole

MOST_CLASSES_CROSSED = 100
"""More classes than this, and the confusion matrix is left out: nobody could read it, and the file would be large."""

CONFIDENCE_CELLS = 200


class Evaluation(Callback):
    """Writes figures/evaluation.json at the end of the test.

    class_names; labelled, predicted, right: tokens of each class; confusion: (classes, classes) tokens, rows are
    labels, null for more than 100 classes; calibration: count, confidence and accuracy of each bin, and
    expected_calibration_error; stretches: examples with labels and predictions as [class, tokens] runs, -100 for none,
    and the mean confidence of at most 200 equal cells. Examples are of the crops that the first process reads.

    stretch_tokens: tokens in an example, 1 or more.
    num_bins:       bins of confidence, 2 or more.
    """

    def __init__(self, *, stretch_tokens: int = 3000, num_bins: int = 15) -> None:
        for name, value, least in (("stretch_tokens", stretch_tokens, 1), ("num_bins", num_bins, 2)):
            if value < least:
                raise UsageError(f"callbacks.evaluation.{name}={value}: expected {least} or more")
        self.calibration = Calibration(num_bins=num_bins)
        self.stretch_tokens = stretch_tokens
        self.stretches = ExampleStretches(length=stretch_tokens)

    def on_test_start(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        self.calibration.to(pl_module.device).reset()
        self.stretches = ExampleStretches(length=self.stretch_tokens)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Tagger,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        classes, confidences, labels = outputs["classes"], outputs["confidences"], batch["labels"]
        self.calibration.update(classes, confidences, labels)
        if trainer.is_global_zero:
            self.stretches.add(classes, confidences, labels)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Tagger) -> None:
        metrics = cast(TokenMetrics, pl_module.test_scores.metrics)
        # All processes take part in both sums; Lightning resets the metrics only after this.
        with metrics.sync_context():
            confusion = metrics.confusion.cpu()
        calibration = self.calibration.compute()
        if not trainer.is_global_zero:
            return
        evaluation = {
            "class_names": list(metrics.class_names),
            "labelled": confusion.sum(1).tolist(),
            "predicted": confusion.sum(0).tolist(),
            "right": confusion.diagonal().tolist(),
            "confusion": confusion.tolist() if len(confusion) <= MOST_CLASSES_CROSSED else None,
            "calibration": {name: figure.tolist() for name, figure in calibration.items()},
            "stretches": [_plain(example) for example in self.stretches.chosen()],
        }
        path = Path(trainer.default_root_dir) / "figures" / "evaluation.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(evaluation).encode())


def _plain(example: Example) -> dict[str, Any]:
    stretch = example.stretch
    cells = stretch.confidences.float().tensor_split(min(CONFIDENCE_CELLS, len(stretch.confidences)))
    return {
        "why": example.why,
        "crop": stretch.crop,
        "start": stretch.start,
        "accuracy": stretch.accuracy,
        "labels": _runs(stretch.labels),
        "predictions": _runs(stretch.predictions),
        "confidence": [round(float(cell.mean()), 4) for cell in cells],
    }


def _runs(classes: Tensor) -> list[tuple[int, int]]:
    return [(label, len(list(run))) for label, run in groupby(classes.tolist())]
