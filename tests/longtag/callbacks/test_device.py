# pyright: reportArgumentType=false
import time
from types import SimpleNamespace

import pytest
import torch

from longtag.callbacks.device import DeviceMonitor, read_driver
from longtag.errors import UsageError

GPU = torch.device("cuda", 0)


class Module:
    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.logged = {}

    def log_dict(self, figures, **_):
        self.logged = figures


def refuse(device):
    raise RuntimeError("not supported")


def test_the_drivers_answers_come_as_a_share_and_in_watts(monkeypatch):
    monkeypatch.setattr("torch.cuda.utilization", lambda device: 87)
    monkeypatch.setattr("torch.cuda.power_draw", lambda device: 412_500)
    assert read_driver(GPU) == {"device/utilization": 0.87, "device/power_w": 412.5}


def test_what_the_driver_does_not_tell_is_absent(monkeypatch):
    monkeypatch.setattr("torch.cuda.utilization", refuse)
    monkeypatch.setattr("torch.cuda.power_draw", lambda device: 100_000)
    assert read_driver(GPU) == {"device/power_w": 100}
    monkeypatch.setattr("torch.cuda.power_draw", refuse)
    assert read_driver(GPU) == {}


def test_a_slow_driver_does_not_hold_a_step_up(monkeypatch):
    def slow(device):
        time.sleep(0.3)
        return 50

    monkeypatch.setattr("torch.cuda.utilization", slow)
    monkeypatch.setattr("torch.cuda.power_draw", refuse)
    monitor, module = DeviceMonitor(every_seconds=0.01), Module("cuda")
    monitor.on_train_start(SimpleNamespace(), module)
    started = time.perf_counter()
    monitor.on_train_batch_end(SimpleNamespace(), module, None, None, 0)
    assert time.perf_counter() - started < 0.2
    assert module.logged == {}
    while not module.logged and time.perf_counter() - started < 10:
        monitor.on_train_batch_end(SimpleNamespace(), module, None, None, 1)
        time.sleep(0.01)
    assert module.logged == {"device/utilization": 0.5}
    thread = monitor._thread
    assert thread is not None
    monitor.teardown(SimpleNamespace(), module, "fit")
    assert not thread.is_alive()


def test_on_the_cpu_nobody_is_asked():
    monitor, module = DeviceMonitor(every_seconds=0.01), Module("cpu")
    monitor.on_train_start(SimpleNamespace(), module)
    assert monitor._thread is None


def test_a_time_of_nothing_is_refused():
    with pytest.raises(UsageError, match="every_seconds=0: expected a time above 0 seconds"):
        DeviceMonitor(every_seconds=0)


@pytest.mark.gpu
def test_a_gpu_tells_both_where_its_driver_has_a_python_binding():
    pytest.importorskip("pynvml")
    torch.ones(1, device=GPU)
    figures = read_driver(GPU)
    assert 0 <= figures["device/utilization"] <= 1
    assert 10 < figures["device/power_w"] < 2000
