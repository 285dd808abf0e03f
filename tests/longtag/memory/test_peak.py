import pytest
import torch

from longtag.memory.peak import peak_gib, read_allocator, reset_peak

CPU = torch.device("cpu")


def test_the_peak_of_a_step_is_seen_after_its_memory_was_freed():
    reset_peak(CPU)
    before = peak_gib(CPU)["memory/peak_rss_gib"]
    block = torch.ones(2**27)  # 0.5 GiB
    del block
    assert peak_gib(CPU)["memory/peak_rss_gib"] - before == pytest.approx(0.5, abs=0.05)


def test_each_step_starts_a_new_peak():
    block = torch.ones(2**27)
    high = peak_gib(CPU)["memory/peak_rss_gib"]
    del block
    reset_peak(CPU)
    assert peak_gib(CPU)["memory/peak_rss_gib"] < high - 0.4


@pytest.mark.gpu
def test_on_a_gpu_allocated_and_reserved_are_told_apart():
    device = torch.device("cuda", 0)
    torch.empty(1, device=device)  # the context, before anything is measured
    torch.cuda.empty_cache()
    reset_peak(device)
    before = peak_gib(device)["memory/peak_allocated_gib"]
    block = torch.ones(2**27, device=device)
    del block
    peak = peak_gib(device)
    assert peak["memory/peak_allocated_gib"] - before == pytest.approx(0.5, abs=0.01)
    assert peak["memory/peak_reserved_gib"] >= peak["memory/peak_allocated_gib"]


@pytest.mark.gpu
def test_the_allocator_is_read_as_torch_tells_it():
    device = torch.device("cuda", 0)
    block = torch.ones(2**20, device=device)
    now, stats = read_allocator(device), torch.cuda.memory_stats(device)
    assert now.allocated == torch.cuda.memory_allocated(device) >= block.nbytes
    assert now.peak_allocated == torch.cuda.max_memory_allocated(device)
    assert now.peak_reserved == torch.cuda.max_memory_reserved(device)
    assert (now.retries, now.failures) == (stats["num_alloc_retries"], stats["num_ooms"])
