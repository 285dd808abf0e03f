"""Which runs belong together, what sets them apart, and which are on the Pareto front."""

import pytest

from longtag.report.document import report_of_runs
from longtag.report.groups import Spread, compare
from longtag.report.pareto import Point, dominates
from longtag.report.runs import read

from . import fake


def front(*points: tuple[float, float, float]) -> list[int]:
    made = [Point(*point) for point in points]
    return [place for place, point in enumerate(made) if not any(dominates(other, point) for other in made)]


def test_the_front_leaves_out_what_another_beats_in_every_respect():
    assert front((0.9, -4, 100), (0.8, -5, 90), (0.7, -1, 50), (0.95, -8, 10)) == [0, 2, 3]


def test_points_that_tie_are_both_on_the_front_and_a_tie_in_part_is_beaten():
    assert front((0.9, -4, 100), (0.9, -4, 100)) == [0, 1]
    assert front((0.9, -4, 100), (0.9, -4, 99)) == [0]


def test_groups_are_on_the_front_by_quality_memory_and_speed_together(tmp_path):
    figures = {"window": (0.7, 3, 900e3), "bigbird": (0.9, 5, 500e3), "random": (0.6, 6, 400e3)}
    for name, values in figures.items():
        fake.write_run(tmp_path / name, pattern=name, figures=values)
    groups = compare(read([tmp_path])).groups
    assert {group.variant: group.on_front for group in groups} == {"window": True, "bigbird": True, "random": False}


def test_a_run_without_a_test_is_not_on_the_front(tmp_path):
    fake.write_run(tmp_path / "0", pattern="window")
    fake.write_run(tmp_path / "1", pattern="bigbird", status=None)
    assert [group.on_front for group in compare(read([tmp_path])).groups] == [True, False]


def test_runs_that_differ_in_the_seed_alone_are_one_group_with_mean_and_range(sweep):
    comparison = compare(read([sweep]))
    assert [(group.variant, len(group.runs)) for group in comparison.groups] == [
        ("window", 2),
        ("dilated", 2),
        ("bigbird", 2),
    ]
    group = comparison.groups[0]
    values = [run.summary["test/accuracy"] for run in group.runs]
    found = group.spread(lambda run: run.last("test/accuracy"))
    assert found is not None
    assert found.mean == pytest.approx(sum(values) / 2)
    assert (found.low, found.high) == (min(values), max(values))


def test_figures_that_are_absent_or_no_numbers_do_not_enter_a_mean():
    assert Spread.of([None, float("nan"), 2.0]) == Spread(2.0, 2.0, 2.0)
    assert Spread.of([None, float("nan")]) is None


def test_options_of_the_data_make_tasks_and_the_others_variants(tmp_path):
    for number, (track, memory) in enumerate([("coarse", "fast"), ("coarse", "lean"), ("replichore", "fast")]):
        options = [f"data.track={track}", f"memory={memory}", "trainer.max_steps=300"]
        fake.write_run(tmp_path / str(number), overrides=options)
    comparison = compare(read([tmp_path]))
    assert [(group.task, group.variant) for group in comparison.groups] == [
        ("track=coarse", "memory=fast"),
        ("track=coarse", "memory=lean"),
        ("track=replichore", "memory=fast"),
    ]


def test_experiments_with_data_of_their_own_are_tasks_and_others_are_variants(tmp_path):
    for experiment, track in (("near", "coarse"), ("far", "replichore")):
        fake.write_run(tmp_path / "own" / experiment, overrides=[f"experiment={experiment}"], track=track)
        fake.write_run(tmp_path / "shared" / experiment, overrides=[f"experiment={experiment}"], track="coarse")
    own, shared = (compare(read([tmp_path / name])) for name in ("own", "shared"))
    assert (own.tasks, own.variants) == (["far", "near"], ["window"])
    assert (shared.tasks, shared.variants) == ([""], ["far", "near"])


def test_what_goes_with_a_pattern_is_told_as_its_settings_and_not_in_its_name(tmp_path):
    far = ["pattern.window=2", "pattern.dilations=[1,9,81,729]"]
    fake.write_run(tmp_path / "0", pattern="dilated", overrides=far)
    fake.write_run(tmp_path / "1", pattern="longformer", overrides=["pattern.num_global=2"])
    told = [(group.variant, group.pattern, group.settings) for group in compare(read([tmp_path])).groups]
    assert told == [
        ("dilated", "dilated", {"pattern": "window=2, dilations=[1,9,81,729]"}),
        ("longformer", "longformer", {"pattern": "num_global=2"}),
    ]


def test_a_job_that_was_never_started_joins_the_runs_with_what_it_was_given(tmp_path):
    jobs = []
    for number, (pattern, more) in enumerate([("bigbird", []), ("longformer", ["pattern.num_global=2"])]):
        fake.write_run(tmp_path / f"{number}", pattern=pattern, overrides=more)
        jobs.append(fake.job(number, [f"pattern={pattern}", *more]))
    jobs += [fake.job(2, ["pattern=bigbird"], "pending"), fake.job(3, ["pattern=window"], "pending")]
    fake.write_jobs(tmp_path, jobs)
    document = report_of_runs(runs := read([tmp_path]), "reach")
    assert [(group.variant, len(group.runs)) for group in compare(runs).groups] == [
        ("bigbird", 2),
        ("longformer", 1),
        ("window", 1),
    ]
    assert document.lead == "4 runs: 3 variants, 1 seed"


def test_a_setting_in_which_runs_with_the_same_pattern_differ_is_part_of_the_name(tmp_path):
    for size in (16, 64):
        fake.write_run(tmp_path / f"{size}", pattern="window", overrides=[f"pattern.window={size}"])
    fake.write_run(tmp_path / "random", pattern="random", overrides=["pattern.keys_per_query=16"])
    groups = compare(read([tmp_path])).groups
    assert [group.variant for group in groups] == ["window, window=16", "window, window=64", "random"]
    assert [group.settings for group in groups] == [{}, {}, {"pattern": "keys_per_query=16"}]


def test_variants_whose_long_values_are_shortened_alike_keep_names_of_their_own(tmp_path):
    for number in range(2):
        fake.write_run(tmp_path / f"run {number}", overrides=[f"pattern.path=/a/long/path/{number}/to/a/table.npy"])
    variants = [group.variant for group in compare(read([tmp_path])).groups]
    assert variants == ["path=/a/long/pa…ble.npy (run 0)", "path=/a/long/pa…ble.npy (run 1)"]


def test_an_option_that_one_run_left_at_its_default_is_read_from_its_config(tmp_path):
    fake.write_run(tmp_path / "0", overrides=["tokens=5000"])
    fake.write_run(tmp_path / "1")
    assert [group.variant for group in compare(read([tmp_path])).groups] == ["tokens=5000", "tokens=20000"]


def test_where_nobody_got_as_far_as_the_test_the_best_validation_is_compared(tmp_path):
    fake.write_run(tmp_path / "0", status=None)
    comparison = compare(read([tmp_path]))
    assert comparison.quality.name == "validation F1 (macro)"
    assert comparison.groups[0].spread(comparison.quality.of) is not None
