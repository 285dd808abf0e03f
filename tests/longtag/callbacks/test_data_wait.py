# pyright: reportArgumentType=false
import time
from types import SimpleNamespace

import pytest

from longtag.callbacks.data_wait import DataWait
from longtag.data.timed_loader import TimedLoader


class Module:
    def log_dict(self, figures, **_):
        self.share = figures["data/wait_share"]


class Slow:
    def __getitem__(self, item: int) -> int:
        time.sleep(0.06)
        return item

    def __len__(self) -> int:
        return 4


def test_the_share_is_the_time_of_the_fetch_in_the_time_since_the_last_step():
    loader, module, monitor = TimedLoader(Slow(), batch_size=None), Module(), DataWait()
    trainer, batches = SimpleNamespace(train_dataloader=loader), iter(loader)
    monitor.on_train_start(trainer, module)
    for _ in range(2):
        next(batches)
        time.sleep(0.06)
        monitor.on_train_batch_end(trainer, module, None, None, 0)
        assert module.share == pytest.approx(0.5, abs=0.2)
    time.sleep(0.02)
    monitor.on_train_batch_end(trainer, module, None, None, 0)
    assert module.share == 0


def test_a_timed_loader_gives_what_a_loader_gives_and_ends_with_it():
    loader = TimedLoader(Slow(), batch_size=2)
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    assert loader.seconds_waited == pytest.approx(0.24, abs=0.15)
