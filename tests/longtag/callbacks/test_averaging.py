import json
from pathlib import Path

import lightning as L
import pytest
import torch

from longtag.callbacks.averaging import Averaging
from longtag.errors import UsageError
from longtag.memory.estimate.composed import compose_subject
from longtag.memory.estimate.count import count_standing
from tests.longtag.conftest import CONF, run_in_folder


def checkpoint(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_checkpoints_hold_the_running_mean_of_the_weights(tiny, tmp_path):
    # A rate without warm-up, which would depend on how many steps follow.
    options = ("callbacks=averaging", "callbacks.averaging.decay=0.75", "optim.schedule=constant")
    options += ("optim.warmup_steps=0", "test=false")
    for steps in (1, 2):
        run_in_folder(tiny(*options, f"trainer.max_steps={steps}", f"hydra.runtime.output_dir={tmp_path}/{steps}"))
    first, second = (checkpoint(tmp_path / name)["current_model_state"] for name in ("1", "2"))
    mean = checkpoint(tmp_path / "2")["state_dict"]
    assert any(not torch.equal(first[name], second[name]) for name in mean)
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.75 * first[name] + 0.25 * second[name])


class OneWeight(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(3))


def test_the_mean_follows_the_weights_to_their_device():
    trainer, module, averaging = L.Trainer(logger=False, accelerator="cpu"), OneWeight(), Averaging(decay=0.9)
    averaging.setup(trainer, module, "fit")
    averaging.on_fit_start(trainer, module.to("meta"))
    assert averaging.mean is not None
    assert {parameter.device.type for parameter in averaging.mean.parameters()} == {"meta"}


def test_weights_in_float64_have_a_mean_in_float64(tiny, tmp_path):
    run_in_folder(tiny("callbacks=averaging", "trainer.precision=64-true", "trainer.max_steps=2", "test=false"))
    assert {tensor.dtype for tensor in checkpoint(tmp_path / "run")["state_dict"].values()} == {torch.float64}


def test_a_run_with_a_mean_of_lightnings_own_goes_on(tiny, tmp_path):
    own = "+callbacks.mean._target_=lightning.pytorch.callbacks.EMAWeightAveraging"
    for steps in (2, 4):
        run_in_folder(tiny(own, "test=false", f"trainer.max_steps={steps}"))
    assert json.loads((tmp_path / "run/summary.json").read_text())["steps"] == 4


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_a_decay_that_is_no_share_is_refused(decay):
    with pytest.raises(UsageError, match=rf"decay={decay}: expected a share from 0 to less than 1"):
        Averaging(decay=decay)


def test_the_copy_counts_as_weights_where_they_are_measured_and_where_they_are_estimated(tiny, tmp_path):
    measured, estimated = [], []
    for callbacks in ("default", "averaging"):
        folder = tmp_path / callbacks
        options = (f"callbacks={callbacks}", "trainer.max_steps=1", "test=false")
        run_in_folder(tiny(*options, f"hydra.runtime.output_dir={folder}"))
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        measured += [row["memory/weights_gib"] for row in rows if "memory/weights_gib" in row]
        subject, _ = compose_subject(CONF, [f"callbacks={callbacks}", "tokens=2000"])
        estimated.append(sum(count_standing(subject).weights.values()))
    # The copy has a number more, that of the steps it has seen.
    assert measured[1] == pytest.approx(2 * measured[0], rel=1e-3)
    assert estimated[1] == 2 * estimated[0]
