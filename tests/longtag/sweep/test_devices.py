from types import SimpleNamespace

import pytest

from longtag.sweep.devices import Places, gpus_wanted, visible_gpus


def test_a_machine_without_gpus_runs_one_job_after_another():
    places = Places([])
    assert places.take(0) == []
    assert places.take(0) is None
    places.give_back([])
    assert places.take(0) == []


def test_each_gpu_has_one_job_at_a_time():
    places = Places(["0", "1"])
    assert [places.take(1), places.take(1), places.take(1)] == [["0"], ["1"], None]
    places.give_back(["1"])
    assert places.take(1) == ["1"]


def test_a_job_on_two_gpus_waits_for_both():
    places = Places(["0", "1", "2"])
    assert places.take(2) == ["0", "1"]
    assert places.take(2) is None
    assert places.take(1) == ["2"]
    places.give_back(["0", "1"])
    assert places.take(2) == ["0", "1"]


def test_more_jobs_than_gpus_share_them_evenly():
    places = Places(["0", "1"], jobs_at_once=3)
    assert [places.take(1) for _ in range(4)] == [["0"], ["1"], ["0"], None]
    places.give_back(["1"])
    assert places.take(1) == ["1"]


def test_fewer_jobs_than_gpus_leave_gpus_free():
    places = Places(["0", "1"], jobs_at_once=1)
    assert [places.take(1), places.take(1)] == [["0"], None]


@pytest.mark.parametrize(
    ("accelerator", "devices", "wanted"),
    [
        ("auto", 1, 1),
        ("gpu", 2, 2),
        ("gpu", "2", 2),
        ("gpu", 8, 4),
        ("auto", -1, 4),
        ("auto", "auto", 4),
        ("gpu", [1, 2], 4),
        ("cpu", 2, 0),
    ],
)
def test_a_job_asks_for_the_gpus_that_its_trainer_takes(accelerator, devices, wanted):
    assert gpus_wanted(SimpleNamespace(accelerator=accelerator, devices=devices), 4) == wanted


@pytest.mark.parametrize(
    ("named", "gpus"), [(None, ["0", "1"]), ("3,5", ["3", "5"]), ("GPU-a,GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus_are_those_that_this_process_may_see(monkeypatch, named, gpus):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus
