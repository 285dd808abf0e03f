# pyright: reportArgumentType=false
import time
from types import SimpleNamespace

import pytest
import torch

from longtag.callbacks.throughput import ThroughputMonitor
from longtag.data import TokenIds
from longtag.flops import training_flops
from longtag.model import TokenClassifier
from sparse_attention import patterns


class Module:
    """What the monitor asks of the LightningModule."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.model = None
        self.logged = {}

    def log_dict(self, figures, **_):
        self.logged = figures


def test_a_step_lasts_from_the_end_of_the_one_before():
    monitor, module, trainer = ThroughputMonitor(), Module(), SimpleNamespace(world_size=2, precision="32-true")
    batch = {"labels": torch.zeros(3, 50)}
    monitor.on_train_start(trainer, module)
    time.sleep(0.05)
    monitor.on_train_batch_end(trainer, module, None, batch, 0)
    first = module.logged
    assert 50 <= first["throughput/step_ms"] < 150
    assert first["throughput/tokens_per_second"] == pytest.approx(300 / (first["throughput/step_ms"] / 1e3))
    monitor.on_train_batch_end(trainer, module, None, batch, 1)
    assert module.logged["throughput/step_ms"] < 50
    assert module.logged["throughput/tokens_seen"] == 600


def test_a_validation_is_no_part_of_a_step():
    monitor, module, trainer = ThroughputMonitor(), Module(), SimpleNamespace(world_size=1, precision="32-true")
    monitor.on_train_start(trainer, module)
    time.sleep(0.05)
    monitor.on_validation_end(trainer, module)
    monitor.on_train_batch_end(trainer, module, None, {"labels": torch.zeros(1, 1)}, 0)
    assert module.logged["throughput/step_ms"] < 50


def test_a_resumed_run_counts_tokens_on():
    monitor = ThroughputMonitor()
    monitor.load_state_dict({"tokens_seen": 40})
    monitor.on_train_start(SimpleNamespace(precision="32-true"), Module())
    module = Module()
    monitor.on_train_batch_end(
        SimpleNamespace(world_size=1, precision="32-true"), module, None, {"labels": torch.zeros(1, 2)}, 0
    )
    assert module.logged["throughput/tokens_seen"] == 42


def test_flops_count_matrices_and_attended_pairs():
    d_model, d_ff, num_tokens, classes = 8, 12, 10, 3
    model = TokenClassifier(
        inputs=TokenIds(5),
        num_classes=classes,
        pattern=lambda n: patterns.random(n, keys_per_query=4),
        num_layers=2,
        num_heads=2,
        d_model=d_model,
        d_ff=d_ff,
    )
    matrices = 2 * (4 * d_model**2 + 2 * d_model * d_ff) + d_model * classes
    edges = num_tokens * 4
    forward = 2 * matrices * num_tokens + 2 * 4 * edges * d_model
    assert training_flops(model, num_tokens) == 3 * forward


def test_arithmetic_is_a_share_of_what_the_device_can_do(monkeypatch):
    monkeypatch.setattr("longtag.callbacks.throughput.peak_flops", lambda device, precision: 10**9)
    monkeypatch.setattr("longtag.callbacks.throughput.training_flops", lambda model, tokens: tokens * 10**5)
    monitor, module, trainer = ThroughputMonitor(), Module(), SimpleNamespace(world_size=1, precision="bf16-mixed")
    monitor.on_train_start(trainer, module)
    time.sleep(0.05)
    monitor.on_train_batch_end(trainer, module, None, {"labels": torch.zeros(2, 50)}, 0)
    assert module.logged["throughput/mfu"] == pytest.approx(10 / module.logged["throughput/step_ms"])
