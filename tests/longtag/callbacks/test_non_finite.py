"""A step that is not finite: it changes nothing, and the run stops with its name or goes on without it."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch

from longtag.callbacks.non_finite import NonFinite
from longtag.errors import UsageError
from longtag.tagger import Tagger

from ..conftest import run_in_folder

QUICK = ("trainer.max_steps=6", "trainer.val_check_interval=6", "test=false")


@pytest.fixture
def broken(monkeypatch):
    """A function that makes the training loss of some batches, counted from 0, not finite."""

    def break_batches(*numbers: int, by: float = torch.nan) -> None:
        real, count = Tagger.cost_and_weight, iter(range(1000))

        def cost_and_weight(self, batch):
            cost, weight = real(self, batch)
            return (cost * by if self.training and next(count) in numbers else cost), weight

        monkeypatch.setattr(Tagger, "cost_and_weight", cost_and_weight)

    return break_batches


@pytest.fixture
def states(monkeypatch):
    """Copies of weights and optimizer after each batch of a run, taken before the monitors look."""
    seen = []
    real = NonFinite.on_train_batch_end

    def spy(self, trainer, pl_module, outputs, batch, batch_idx):
        optimizer = copy.deepcopy(trainer.optimizers[0].state_dict()["state"])
        seen.append({"weights": copy.deepcopy(dict(pl_module.state_dict())), "optimizer": optimizer})
        real(self, trainer, pl_module, outputs, batch, batch_idx)

    monkeypatch.setattr(NonFinite, "on_train_batch_end", spy)
    return seen


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def refusal(configs) -> str:
    with pytest.raises(UsageError) as caught:
        run_in_folder(configs)
    return str(caught.value)


@pytest.mark.parametrize("clip", ["1.0", "null"])
def test_a_skipped_step_leaves_weights_and_optimizer_as_they_were_to_the_bit(tiny, tmp_path, broken, states, clip):
    broken(2)
    run_in_folder(tiny(*QUICK, "callbacks.non_finite.action=skip", f"trainer.gradient_clip_val={clip}"))
    assert same(states[2], states[1])
    assert not same(states[3]["weights"], states[2]["weights"])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "train/loss" in line]
    assert [line["optim/skipped_steps"] for line in training] == [0, 0, 1, 1, 1, 1]
    assert training[2]["train/loss"] is None
    assert training[2]["optim/gradient_norm"] is None


def test_an_accumulated_step_is_skipped_whole(tiny, broken, states):
    broken(3)
    run_in_folder(tiny(*QUICK, "trainer.max_steps=3", "callbacks.non_finite.action=skip",
                       "trainer.accumulate_grad_batches=2"))  # fmt: skip
    assert same(states[3], states[1])
    assert not same(states[5]["weights"], states[3]["weights"])


def test_many_skipped_steps_in_a_row_stop_the_run(tiny, broken):
    broken(1, 3, 4, 5)
    options = ("callbacks.non_finite.action=skip", "callbacks.non_finite.most_in_a_row=3")
    message = refusal(tiny(*QUICK, *options))
    assert message.startswith("step 6 is not finite: loss nan")
    assert "3 steps in a row" in message


def test_the_run_stops_with_step_and_crop_and_leaves_the_weights(tiny, tmp_path, broken, states):
    broken(2, 6)  # the seventh is that of the second look
    message = refusal(tiny(*QUICK))
    assert message.startswith("step 3 is not finite: loss nan, norm of the gradient nan\n")
    assert "crop: tokens 0 to 63 of record 0" in message
    assert same(states[2], states[1])
    assert json.loads((tmp_path / "run/summary.json").read_text())["status"] == "failed"


def test_the_layer_is_named_whose_output_was_not_finite(tiny, monkeypatch):
    def overflow(module, inputs, output):
        return output * torch.inf

    monkeypatch.setattr(
        Tagger, "on_train_start",
        lambda self: self.model.encoder.blocks[1].feed_forward.linear1.register_forward_hook(overflow),
        raising=False,
    )  # fmt: skip
    message = refusal(tiny(*QUICK))
    assert "step 1 is not finite" in message
    assert "number that is not finite is encoder.blocks.1.feed_forward.linear1" in message


def test_the_weight_is_named_whose_gradient_was_not_finite(tiny, monkeypatch):
    monkeypatch.setattr(
        Tagger, "on_train_start",
        lambda self: self.model.encoder.blocks[0].attention.output.bias.register_hook(lambda g: g * torch.inf),
        raising=False,
    )  # fmt: skip
    message = refusal(tiny(*QUICK, "memory=balanced"))
    assert "the first gradient that is not finite is that of encoder.blocks.0.attention.output.bias" in message
    assert "more after it" not in message


def test_of_several_accumulated_crops_the_faulty_one_is_named(composed, broken):
    broken(3, 5)  # the second step's second batch, seen again as the second of the two that are run once more
    message = refusal(composed(
        "tokens=100", "model.d_model=16", "pattern=window", "logger=none", "trainer.accelerator=cpu", *QUICK,
        "trainer.accumulate_grad_batches=2", "crops.val_limit=1",
    ))  # fmt: skip
    assert message.startswith("step 2 is not finite: loss ")
    assert message.count("crop: tokens") == 1
    assert "their loss is not" in message


def test_with_steps_in_backward_it_says_that_the_weights_are_lost(tiny, broken):
    broken(2)
    options = ("optim.in_backward=true", "trainer.gradient_clip_val=null")
    message = refusal(tiny(*QUICK, *options))
    assert message.startswith("step 3 is not finite: loss nan\n")
    assert "crop: tokens 0 to 63" in message
    assert "the weights in memory are lost" in message
    assert "skip" not in message
    assert "give callbacks.non_finite.action=stop" in refusal(tiny(*options, "callbacks.non_finite.action=skip"))


def test_with_a_loss_scaler_infinite_gradients_are_left_to_it():
    def judged(loss: float, norm: float) -> bool:
        trainer = SimpleNamespace(
            precision_plugin=SimpleNamespace(scaler=object()),
            strategy=SimpleNamespace(reduce=lambda value, reduce_op: value),
        )
        tagger = SimpleNamespace(gradient_norm=torch.tensor(norm))
        return NonFinite._is_finite(trainer, tagger, torch.tensor([loss]))  # pyright: ignore[reportArgumentType]

    assert judged(1.0, torch.inf)
    assert not judged(torch.nan, torch.nan)


def test_a_resumed_run_counts_skipped_steps_on(tiny, tmp_path, broken):
    broken(1)
    run_in_folder(tiny(*QUICK, "callbacks.non_finite.action=skip", "trainer.max_steps=3"))
    run_in_folder(tiny(*QUICK, "callbacks.non_finite.action=skip"))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["optim/skipped_steps"] for line in lines if "train/loss" in line][-1] == 1
