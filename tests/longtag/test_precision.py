import json

import pytest
import torch

from longtag.precision import float32_products

from .conftest import run_in_folder


def figures(folder) -> dict:
    return json.loads((folder / "summary.json").read_text())


def test_weights_in_bfloat16_train_nearly_as_well_and_are_scored_in_float32(tiny, tmp_path):
    options = ("tokens=2000", "trainer.max_steps=8", "trainer.val_check_interval=8", "loss.class_weights=balanced")
    narrow = ("trainer.precision=bf16-true", "optim.update=compensated")
    run_in_folder(tiny(*options, f"hydra.runtime.output_dir={tmp_path}/wide"))
    run_in_folder(tiny(*options, *narrow, f"hydra.runtime.output_dir={tmp_path}/narrow"))
    wide, found = figures(tmp_path / "wide"), figures(tmp_path / "narrow")
    for name in ("train/loss", "val/loss", "test/loss"):
        assert found[name] == pytest.approx(wide[name], rel=0.02)
        # A figure that was ever rounded to bfloat16 has no other bits.
        assert torch.tensor(found[name]).bfloat16().item() != found[name]
    saved = torch.load(tmp_path / "narrow/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}


@pytest.mark.parametrize("clip", ["null", "0.1"])
def test_gradients_of_weights_in_bfloat16_can_be_clipped_and_accumulated(tiny, tmp_path, clip):
    run_in_folder(
        tiny(
            "trainer.precision=bf16-true",
            "optim.update=stochastic",
            f"trainer.gradient_clip_val={clip}",
            "trainer.accumulate_grad_batches=2",
            "memory=lean",
            "memory.tile_tokens=10",
            "memory.tile_heads=1",
        )
    )
    assert figures(tmp_path / "run")["status"] == "completed"
    assert figures(tmp_path / "run")["train/loss"] < 2


def test_the_precision_of_products_holds_inside_and_only_for_a_gpu():
    before = torch.get_float32_matmul_precision()
    assert before == "highest"
    with float32_products("high", torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
    with float32_products("medium", torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before


def test_a_run_multiplies_with_the_precision_of_its_config(tiny, monkeypatch):
    asked = []

    def recorded(precision, device):
        asked.append((precision, device.type))
        return float32_products(precision, device)

    monkeypatch.setattr("longtag.run.float32_products", recorded)
    run_in_folder(tiny("matmul_precision=medium", "test=false", "trainer.max_steps=2"))
    assert asked == [("medium", "cpu")]


@pytest.mark.gpu
def test_products_in_tf32_do_not_reach_the_kernels_of_sparse_attention():
    from sparse_attention import patterns, sparse_attention

    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (torch.randn(1, 2, 512, 64, generator=generator, device="cuda") for _ in range(3))
    product = q @ k.mT
    for layout in ("index_list", "block_sparse"):
        pattern = patterns.window(512, window=32, layout=layout).to(q.device)
        exact = sparse_attention(q, k, v, pattern, implementation="triton")
        with float32_products("high", q.device):
            assert (q @ k.mT - product).abs().max() > 1e-3
            assert torch.equal(sparse_attention(q, k, v, pattern, implementation="triton"), exact)
