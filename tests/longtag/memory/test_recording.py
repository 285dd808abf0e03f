import time

import pytest
import torch

from longtag.memory.recording import AllocatorHistory, CountedTensors


def test_tensors_are_counted_as_they_come_and_go_beside_those_that_were_there():
    before = torch.ones(100)
    counted = CountedTensors([before])
    x = before * 2
    y = x + 1
    del x
    del before
    times, sizes = counted.stop()
    assert sizes.tolist() == [400, 800, 1200, 800, 400]
    assert (times[1:] >= times[:-1]).all()
    after = y + 1
    assert len(times) == 5
    del after


@pytest.mark.gpu
def test_the_allocators_history_gives_the_curve_at_the_times_of_the_hosts_clock():
    device = torch.device("cuda", 0)
    standing = torch.ones(2**20, device=device)
    history = AllocatorHistory(device, max_entries=1000, stacks=False)
    try:
        asked = torch.cuda.memory_stats(device)["requested_bytes.all.current"]
        first = time.time_ns()
        block = torch.ones(2**22, device=device)
        second = time.time_ns()
        del block
        (times, sizes), snapshot = history.snapshot()
    finally:
        history.stop()
    assert (sizes - asked).tolist()[-2:] == [2**24, 0]
    slack = 1_000_000  # a millisecond for the conversion between two clocks
    assert first - slack <= times[-2] <= second + slack
    assert {"segments", "device_traces"} <= set(snapshot)
    del standing


@pytest.mark.gpu
def test_the_ring_of_events_is_bounded():
    device = torch.device("cuda", 0)
    history = AllocatorHistory(device, max_entries=100, stacks=False)
    try:
        for _ in range(1000):
            torch.empty(1000, device=device)
        (times, _), _ = history.snapshot()
    finally:
        history.stop()
    assert len(times) <= 100
