import os
import threading

import pytest
import torch

from longtag.errors import UsageError
from longtag.memory.pinned_pool import GIB, PinnedBlock, PinnedPool, available_bytes

from .late_copies import PlainBlock


class Pool:
    """A pool over ordinary memory, what it asked for, and how often it waited for copies."""

    def __init__(self, available: int = 2**40) -> None:
        self.sizes: list[int] = []
        self.num_drained = 0
        self.pool = PinnedPool(drain=self._drain, allocate=self._allocate, available=lambda: available)

    def _drain(self) -> None:
        self.num_drained += 1

    def _allocate(self, num_bytes: int) -> PlainBlock:
        self.sizes.append(num_bytes)
        return PlainBlock(min(num_bytes, 2**20))


def test_buffers_have_the_size_asked_for_and_are_taken_again():
    made = Pool()
    first, second = made.pool.take(1000), made.pool.take(1000)
    assert first.shape == second.shape == (1000,)
    assert first.dtype == torch.uint8
    assert first.data_ptr() != second.data_ptr()
    made.pool.give_back(first)
    assert made.pool.take(1000).data_ptr() == first.data_ptr()
    assert made.sizes == [1000, 1000]


def test_the_smallest_that_fits_is_taken():
    made = Pool()
    buffers = [made.pool.take(size) for size in (500, 300, 100)]
    for buffer in buffers:
        made.pool.give_back(buffer)
    taken = made.pool.take(200)
    assert taken.shape == (200,)
    assert taken.data_ptr() == buffers[1].data_ptr()
    made.pool.give_back(taken)
    assert made.pool.take(300).data_ptr() == buffers[1].data_ptr()


def test_lengths_that_grow_do_not_add_up():
    made = Pool()
    for size in (100, 200, 300, 250):
        buffers = [made.pool.take(size) for _ in range(3)]
        for buffer in buffers:
            made.pool.give_back(buffer)
    assert made.pool.num_bytes == 3 * 300
    # Nothing is freed under a copy, and nothing is waited for while sizes are the same.
    assert made.num_drained == 2 * 3


def test_more_than_the_host_has_is_refused_before_anything_is_asked_for():
    made = Pool(available=4 * GIB)
    with pytest.raises(
        UsageError, match=r"memory\.offload=true: needs 3\.50 GiB more .* 0\.50 GiB a boundary, and 3\.00 GiB"
    ):
        made.pool.take(GIB // 2, soon=3 * GIB)
    assert made.sizes == []
    made.pool.take(GIB // 2, soon=5 * GIB // 2)
    assert made.sizes == [GIB // 2]


def test_buffers_that_are_there_need_not_be_spared_by_the_host():
    made = Pool(available=GIB + 250)
    buffers = [made.pool.take(100), made.pool.take(100)]
    for buffer in buffers:
        made.pool.give_back(buffer)
    made.pool.take(100, soon=100)
    made.pool.take(100, soon=10**9)
    with pytest.raises(UsageError, match=r"memory\.offload=true"):
        made.pool.take(100, soon=200)


def test_buffers_can_be_given_back_from_another_thread():
    made = Pool()
    buffer = made.pool.take(100)
    thread = threading.Thread(target=made.pool.give_back, args=(buffer,))
    thread.start()
    thread.join()
    assert made.pool.take(100).data_ptr() == buffer.data_ptr()


def test_the_host_says_how_much_it_can_spare():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_bytes() <= total


@pytest.mark.gpu
def test_a_block_is_pinned_in_the_size_asked_for_until_it_dies():
    block = PinnedBlock(5_000_001)
    assert block.data.shape == (5_000_001,)
    assert block.data.is_pinned()
    on_device = torch.randint(255, block.data.shape, dtype=torch.uint8, device="cuda")
    block.data.copy_(on_device, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(block.data, on_device.cpu())
    data = block.data
    del block
    assert not data.is_pinned()
