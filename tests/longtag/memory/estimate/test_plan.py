"""`memory.checkpoint=auto`: the choice fits, it is the best one, and nothing better was overlooked."""

import itertools
import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from longtag.errors import UsageError
from longtag.memory import Levers
from longtag.memory.estimate.choices import count_costs
from longtag.memory.estimate.compose import count_composed
from longtag.memory.estimate.count import count_standing
from longtag.memory.estimate.estimate import estimate, summed
from longtag.memory.estimate.plan import GIB, SAFE, best_plans, plan, plan_of, planned
from longtag.memory.estimate.subject import Subject
from longtag.memory.live_bytes import LiveBytes
from longtag.memory.tiled_loss import cost_of_tokens
from longtag.model import TokenClassifier
from sparse_attention import patterns

from ...conftest import run_in_folder
from ..conftest import assert_equal_to, cost_and_gradients, small_model
from .conftest import small_subject

AUTO = Levers(checkpoint="auto", tile_tokens=700, tile_heads=2)


def subject_of(num_layers: int, levers: Levers = AUTO) -> Subject:
    return small_subject(levers, num_layers=num_layers)


@cache
def costs_of(num_layers: int, levers: Levers = AUTO):
    return count_costs(subject_of(num_layers, levers))


def test_no_choice_for_all_blocks_is_better_than_those_that_are_found():
    """Of five blocks run in seven ways each, with and without tiles around them: 33,614 choices."""
    costs = costs_of(5)
    assert (len(costs.kinds), len(costs.around)) == (7, 3)
    found = best_plans(costs)
    every = [
        plan_of(costs, around, blocks)
        for around in costs.around
        for blocks in itertools.product(range(7), repeat=costs.num_blocks)
        if around.suits(costs.kinds[blocks[0]])
    ]
    for budget in sorted({candidate.peak for candidate in every[:: len(every) // 40]}):
        fastest = min(each.seconds for each in every if each.peak <= budget)
        assert min(each.seconds for each in found if each.peak <= budget) == pytest.approx(fastest, rel=1e-12)
    assert min(each.peak for each in found) == min(each.peak for each in every)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_the_chosen_plan_holds_what_is_said_of_it(share):
    """Counted once more, as a whole and not block by block."""
    costs = costs_of(6)
    peaks = [found.peak for found in best_plans(costs)]
    budget = round((min(peaks) + share * (max(peaks) - min(peaks))) / SAFE)
    subject, chosen = planned(subject_of(6), budget)
    assert chosen is not None
    whole = summed(subject, count_composed(subject), count_standing(subject))
    assert whole.peak == pytest.approx(chosen.peak, rel=1e-3)
    assert whole.peak <= budget
    assert whole.cost.seconds == pytest.approx(chosen.seconds, rel=0.01)


def test_a_real_step_with_the_chosen_plan_stays_within_the_budget():
    """On the CPU, with data: what its tensors hold, and weights, gradients and states beside them."""
    auto = Levers(checkpoint="auto", tile_tokens=100, tile_heads=2)
    subject = small_subject(
        auto, pattern=patterns.dense, num_layers=4, tokens=512, device_type="cpu", precision="32-true"
    )
    kept, recomputed = (estimate(replace(subject, levers=levers)) for levers in (Levers(), Levers(checkpoint="blocks")))
    budget = (kept.peak + recomputed.peak) // 2
    subject, chosen = planned(subject, budget)
    assert chosen is not None
    assert len(set(chosen.blocks)) > 1
    model: TokenClassifier = subject.build_model(
        pattern=patterns.dense, num_layers=4, levers=chosen.levers, levers_of_blocks=chosen.blocks
    )
    standing, ids = count_standing(subject), torch.zeros(1, 512, dtype=torch.int64)
    with LiveBytes() as live:
        tile = chosen.levers.tile_tokens
        cost_of_tokens(model.head, subject.loss, model.encode(ids), ids, tile=tile).backward()
    always = sum(standing.weights.values()) + sum(standing.optimizer_states.values())
    assert 0.8 * budget < live.peak + always <= budget


def test_blocks_that_are_run_in_different_ways_have_the_gradients_of_blocks_that_are_kept():
    ways = [Levers(checkpoint="blocks"), Levers(checkpoint="selective", tile_tokens=9), Levers()]
    mixed = small_model(dropout=0.0, levers_of_blocks=ways)
    assert [block.levers for block in mixed.encoder.blocks] == ways
    assert_equal_to(cost_and_gradients(small_model(dropout=0.0)), cost_and_gradients(mixed))


def test_levers_for_another_number_of_blocks_are_refused():
    with pytest.raises(UsageError, match="levers_of_blocks: 2 for num_layers=3 blocks"):
        small_model(levers_of_blocks=[Levers()] * 2)


def test_some_blocks_are_kept_and_others_recomputed_where_a_preset_would_do_all_alike():
    kept, recomputed = (estimate(subject_of(6, levers)) for levers in (Levers(), Levers(checkpoint="blocks")))
    budget = round((kept.peak + recomputed.peak) / 2 / SAFE)
    chosen = plan(subject_of(6, Levers(checkpoint="auto")), budget)
    assert len(set(chosen.blocks)) > 1
    assert kept.cost.seconds < chosen.seconds < recomputed.cost.seconds
    # Backward frees what the last blocks keep before the first ones are recomputed.
    assert chosen.blocks[-1] == Levers()


def test_with_room_enough_everything_is_kept_and_the_residual_stays_as_given():
    levers = replace(AUTO, residual="bfloat16")
    chosen = plan(subject_of(3, levers), 2**40)
    assert chosen.levers == Levers(residual="bfloat16")
    assert chosen.blocks == (Levers(residual="bfloat16"),) * 3


def test_what_is_kept_waits_on_the_host_where_nothing_else_fits():
    subject = subject_of(8, replace(AUTO, offload=True))
    least = min(found.peak for found in best_plans(costs_of(8)))
    fits, needs_more = (plan(subject, round(share * least / SAFE)) for share in (1.001, 0.999))
    assert not any(levers.offload for levers in fits.blocks)
    assert all(levers.offload for levers in needs_more.blocks)
    assert needs_more.peak < least


def test_where_nothing_fits_the_leanest_and_a_length_are_named():
    with pytest.raises(
        UsageError, match=r"budget_gib=0.065: the leanest plan for tokens=2048 .*; give more, or tokens="
    ):
        plan(subject_of(3), round(0.065 * GIB))


def test_where_no_length_would_fit_none_is_named():
    with pytest.raises(UsageError, match=r"GiB; give more(, or memory.residual=bfloat16)?$"):
        plan(subject_of(3), 1000)


def test_a_run_announces_its_plan_and_writes_it_down(tiny, tmp_path, capsys):
    options = ("model.num_layers=4", "tokens=1000", "data.length=1000", "trainer.max_steps=1", "test=false")
    run_in_folder(tiny(*options, "memory=auto", "memory.budget_gib=0.0025", "callbacks=none"))
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("memory "))
    written = json.loads((tmp_path / "run/summary.json").read_text())["memory_plan"]
    assert said.endswith(f"auto: {written}")
    assert written.startswith("blocks 0")
    assert "of 0.0025 GiB" in written


def test_a_cpu_has_no_card_whose_free_memory_could_be_filled(tiny):
    with pytest.raises(UsageError, match=r"memory.budget_gib=null: .*the run is on the CPU; give memory.budget_gib=4"):
        run_in_folder(tiny("memory=auto"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_gib": 3.0}, r"budget_gib=3.0: .*memory.checkpoint=none; give memory.checkpoint=auto"),
        ({"checkpoint": "auto", "budget_gib": 0.0}, r"budget_gib=0.0: expected a number of GiB above 0"),
        ({"checkpoint": "auto", "budget_gib": float("inf")}, r"budget_gib=inf: expected a number of GiB above 0"),
    ],
)
def test_a_budget_is_above_zero_and_for_auto_alone(options, message):
    with pytest.raises(UsageError, match=message):
        Levers(**options)
