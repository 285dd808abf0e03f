import json
from pathlib import Path

import pytest
from benchmarks.annotation import coarse, coding_strand, f1, main, quality

from longtag.data.labels import TRACKS

NAMES = ("intergenic", "CDS phase 0+", "start codon+", "CDS phase 1-", "tRNA+", "pseudogene")
CONFUSION = [
    [70, 3, 0, 2, 5, 0],
    [4, 50, 6, 0, 0, 0],
    [0, 2, 8, 0, 0, 0],
    [1, 0, 0, 39, 0, 0],
    [2, 0, 0, 0, 8, 0],
    [30, 10, 0, 0, 0, 60],
]


def test_every_class_of_track_fine_belongs_to_one_of_track_coarse():
    assert {coarse(name) for name in TRACKS["fine"].class_names} == set(TRACKS["coarse"].class_names)
    assert [coarse(name) for name in TRACKS["coarse"].class_names] == list(TRACKS["coarse"].class_names)


@pytest.mark.parametrize("track", ["coarse", "fine"])
def test_only_codons_of_genes_code(track):
    coding = [name for name in TRACKS[track].class_names if coding_strand(name)]
    assert len(coding) == {"coarse": 2, "fine": 10}[track]
    assert not any("RNA" in name or "pseudo" in name for name in coding)


def test_classes_of_one_strand_are_right_for_one_another_and_pseudogenes_count_for_nothing():
    found = quality(NAMES, CONFUSION)
    assert found.three_way == pytest.approx((75 + 56 + 10 + 39 + 10) / 200)
    assert found.five_way == pytest.approx((70 + 56 + 10 + 39 + 8) / 200)


def test_macro_f1_leaves_out_classes_that_neither_occur_nor_are_predicted():
    assert f1([[3, 1, 0], [1, 5, 0], [0, 0, 0]]) == pytest.approx((6 / 8 + 10 / 12) / 2)
    assert f1([[4, 0], [2, 0]]) == pytest.approx((8 / 10 + 0) / 2)


def test_the_command_sets_a_run_beside_other_gene_finders(tmp_path: Path, capsys):
    (tmp_path / "figures").mkdir()
    evaluation = {"class_names": NAMES, "confusion": CONFUSION}
    (tmp_path / "figures" / "evaluation.json").write_text(json.dumps(evaluation))
    main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith(f"| {tmp_path} | 0.9500 | 0.9150 | ")
    assert any(line.startswith("| Prodigal") for line in lines)


def test_a_run_without_a_test_is_told_what_is_missing(tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    assert "evaluation.json; it is written by the test of a run" in capsys.readouterr().err
