"""What the LightningModule itself does: the mean over the tokens of a step, and scores that need no logits."""

import functools

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from longtag.data.source import TokenIds
from longtag.loss import TokenLoss
from longtag.memory import Levers
from longtag.metrics import TokenMetrics
from longtag.model import TokenClassifier
from longtag.optim import Optimization
from longtag.tagger import Tagger
from sparse_attention import patterns

NUM_CLASSES = 4


def tagger(levers: Levers | None = None) -> Tagger:
    torch.manual_seed(0)
    model = TokenClassifier(
        inputs=TokenIds(6),
        num_classes=NUM_CLASSES,
        pattern=functools.partial(patterns.window, window=1),
        d_model=8,
        d_ff=16,
        dropout=0.0,
        levers=levers,
    )
    return Tagger(
        model=model,
        loss=TokenLoss(class_weights=[1.0, 2.0, 0.5, 1.0]),
        # An eps above all gradients, so that a step feels their size and not their sign alone.
        optimization=Optimization(learning_rate=1.0, eps=1.0, weight_decay=0.0, warmup_steps=0),
        metrics=TokenMetrics(class_names=["a", "b", "c", "d"]),
    )


def crops() -> list[dict[str, torch.Tensor]]:
    """Four crops of 40 tokens, of which 40, 3, 1 and 25 have a label."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for num_labels in (40, 3, 1, 25):
        labels = torch.randint(NUM_CLASSES, (1, 40), generator=generator)
        labels[:, num_labels:] = -100
        found.append({"inputs": torch.randint(6, (1, 40), generator=generator), "labels": labels})
    return found


def joined(batches: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def loader(batches: list[dict[str, torch.Tensor]]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # pyright: ignore[reportArgumentType]


def trainer(tmp_path, **options) -> L.Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(accelerator="cpu", default_root_dir=tmp_path, **quiet, **options)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("levers", [None, Levers(checkpoint="blocks", tile_tokens=7)], ids=["fast", "lean"])
def test_two_accumulated_crops_with_different_numbers_of_labels_are_a_batch_of_both(tmp_path, levers, clip):
    together, apart = tagger(levers), tagger(levers)
    pairs = [joined(crops()[:2]), joined(crops()[2:])]
    trainer(tmp_path, max_steps=2, gradient_clip_val=clip).fit(together, loader(pairs))
    trainer(tmp_path, max_steps=2, gradient_clip_val=clip, accumulate_grad_batches=2).fit(apart, loader(crops()))
    start = tagger().state_dict()
    for name, weight in together.state_dict().items():
        torch.testing.assert_close(apart.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
        if name == "model.head.weight":
            assert (weight - start[name]).abs().max() > 1e-3


def test_scores_by_tiles_are_those_of_all_tokens_at_once(tmp_path):
    at_once, by_tiles = (
        trainer(tmp_path).validate(tagger(levers), loader([joined(crops())]), verbose=False)[0]
        for levers in (None, Levers(tile_tokens=7))
    )
    assert by_tiles == pytest.approx(at_once, rel=1e-6)
    assert at_once["val/loss"] > 0.1
