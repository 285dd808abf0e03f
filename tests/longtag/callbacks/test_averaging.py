from pathlib import Path

import torch

from tests.longtag.conftest import run_in_folder


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
