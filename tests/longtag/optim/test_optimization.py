import itertools

import pytest
import torch
from torch import nn

from longtag.errors import UsageError
from longtag.optim import Optimization


def test_the_rate_rises_linearly_and_falls_along_a_cosine_to_its_final_fraction():
    optimization = Optimization(warmup_steps=10, schedule="cosine", final_fraction=0.1)
    factors = [optimization.factor(step, 110) for step in range(111)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(0.55)
    assert factors[110] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_a_constant_schedule_stays_after_the_warm_up():
    optimization = Optimization(warmup_steps=2, schedule="constant")
    assert [optimization.factor(step, 8) for step in (2, 5, 8)] == [1.0, 1.0, 1.0]


def test_the_warm_up_takes_at_most_half_of_a_short_run():
    optimization = Optimization(warmup_steps=100, schedule="cosine", final_fraction=0.0)
    assert optimization.factor(2, 4) == pytest.approx(1.0)


def test_only_matrices_decay():
    model = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 8), nn.LayerNorm(8))
    optimizer = Optimization(weight_decay=0.3).configure(model, max_steps=10)["optimizer"]
    decays = {id(parameter): group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(decays) == sum(1 for _ in model.parameters())
    assert {name for name, parameter in model.named_parameters() if decays[id(parameter)] == 0.3} == {"1.weight"}


def test_the_scheduler_sets_the_rate_of_the_optimizer():
    parts = Optimization(learning_rate=0.5, warmup_steps=1).configure(nn.Linear(2, 2), max_steps=10)
    optimizer, scheduler = parts["optimizer"], parts["lr_scheduler"]["scheduler"]
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.25)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5)
    assert isinstance(optimizer, torch.optim.AdamW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate=-1.0: expected 0 or more"),
        ({"betas": (0.9, 1.0)}, r"betas=\[0.9, 1.0\]"),
        ({"warmup_steps": -1}, "warmup_steps=-1"),
        ({"final_fraction": 1.5}, "final_fraction=1.5: expected a fraction from 0 to 1"),
    ],
)
def test_an_impossible_option_is_named(options, message):
    with pytest.raises(UsageError, match=message):
        Optimization(**options)
