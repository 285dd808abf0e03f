"""Levers over several devices: two processes take the steps that one takes over the crops of both."""

import os
import socket
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from longtag.memory import Levers
from longtag.optim import Optimization
from longtag.precision import NarrowModel
from longtag.tagger import Tagger

from ..test_tagger import crops, joined, loader, tagger

LEVERS = {
    "none": Levers(),
    "blocks": Levers(checkpoint="blocks"),
    "selective": Levers(checkpoint="selective"),
    "tokens": Levers(tile_tokens=7),
    "all of lean": Levers(checkpoint="blocks", tile_tokens=7, tile_heads=1, residual="bfloat16"),
}
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def weights(trained: Tagger) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in trained.model.named_parameters()}


def train(levers: Levers, batches: list[dict[str, torch.Tensor]], **options) -> dict[str, torch.Tensor]:
    """The weights after the batches."""
    trained = tagger(levers)
    L.Trainer(accelerator="cpu", max_epochs=1, gradient_clip_val=0.05, **QUIET, **options).fit(trained, loader(batches))
    return weights(trained)


def train_in_16_bits(batches: list[dict[str, torch.Tensor]], **options) -> dict[str, torch.Tensor]:
    trained = tagger()
    for module in trained.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    trained.optimization = Optimization(learning_rate=0.05, states="bfloat16", update="stochastic", warmup_steps=0)
    # Devices need not have drawn the same numbers so far.
    torch.manual_seed(int(os.environ["RANK"]))
    L.Trainer(accelerator="cpu", max_epochs=1, plugins=[NarrowModel("bf16-true")], **QUIET, **options).fit(
        trained, loader(batches)
    )
    return weights(trained)


def one_of_two(rank: int, port: int, folder: Path) -> None:
    """What each process does: every other crop with each of the levers."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "here"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    both = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False, "default_root_dir": folder}
    own = crops()[rank::2]
    found = {name: train(levers, own, **both) for name, levers in LEVERS.items()}
    found["accumulated"] = train(LEVERS["all of lean"], own, accumulate_grad_batches=2, **both)
    found["16 bits"] = train_in_16_bits(own, **both)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    """The weights of both processes."""
    folder = tmp_path_factory.mktemp("two_processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(one_of_two, (port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", LEVERS)
def test_two_processes_take_the_steps_of_one_over_the_crops_of_both(found, name, tmp_path):
    pairs = [joined(crops()[:2]), joined(crops()[2:])]
    expected = train(LEVERS[name], pairs, default_root_dir=tmp_path)
    start = weights(tagger())
    assert any((expected[name] - start[name]).abs().max() > 1e-3 for name in start)
    for process in found:
        torch.testing.assert_close(process[name], expected, rtol=1e-4, atol=1e-6)


def test_two_processes_that_accumulate_take_the_step_of_one_over_all_crops(found, tmp_path):
    expected = train(Levers(), [joined(crops())], default_root_dir=tmp_path)
    for process in found:
        torch.testing.assert_close(process["accumulated"], expected, rtol=1e-4, atol=1e-6)


def test_weights_that_are_rounded_at_random_are_the_same_in_both(found):
    ours, theirs = (process["16 bits"] for process in found)
    start = weights(tagger())
    for name, weight in ours.items():
        assert torch.equal(weight, theirs[name])
        assert not torch.equal(weight, start[name].bfloat16()), f"{name} has not moved"
