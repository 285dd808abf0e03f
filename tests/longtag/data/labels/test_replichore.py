import numpy as np
import pytest

from longtag.data import GenomeSource
from longtag.data.labels import REPLICHORE
from longtag.data.source import IGNORED
from longtag.errors import UsageError
from tests.longtag.data.labels.conftest import LabelRows

LEADING, LAGGING = 0, 1


@pytest.fixture(scope="module")
def ecoli_replichore() -> GenomeSource:
    return GenomeSource(track="replichore")


def test_ecoli_leads_from_oric_round_the_origin_to_dif(ecoli_replichore: GenomeSource):
    labels = ecoli_replichore.contigs[0].labels
    origin, terminus = (3_925_743 + 3_925_975) // 2, (1_590_749 + 1_590_777) // 2
    assert (labels[origin:] == LEADING).all()
    assert (labels[:terminus] == LEADING).all()
    assert (labels[terminus:origin] == LAGGING).all()


def test_the_leading_strand_has_more_g_than_c(ecoli_replichore: GenomeSource):
    (contig,) = ecoli_replichore.contigs
    skew = (contig.codes == 2).astype(int) - (contig.codes == 1)
    assert skew[contig.labels == LEADING].mean() > 0.01
    assert skew[contig.labels == LAGGING].mean() < -0.01


def test_the_arc_from_oric_to_dif_leads_wherever_the_contig_begins(label_rows: LabelRows):
    def labels(origin: str, terminus: str) -> list[int]:
        rows = f"origin_of_replication {origin} + . Note=oriC", f"sequence_feature {terminus} + . Note=dif"
        return label_rows("replichore", *rows, length=20, circular=True)

    assert labels("3 6", "13 14") == [LAGGING] * 4 + [LEADING] * 9 + [LAGGING] * 7
    assert labels("13 14", "3 6") == [LEADING] * 4 + [LAGGING] * 9 + [LEADING] * 7
    assert labels("19 22", "9 10") == [LEADING] * 9 + [LAGGING] * 11


def test_a_base_in_the_very_middle_is_ignored(label_rows: LabelRows):
    rows = "origin_of_replication 4 6 + . Note=oriC", "sequence_feature 12 12 + . Note=dif"
    labels = label_rows("replichore", *rows, length=20, circular=True, ns=[15])
    assert [position for position, label in enumerate(labels) if label == IGNORED] == [4, 11, 15]


def test_a_linear_contig_and_one_without_dif_have_no_labels(label_rows: LabelRows):
    both = "origin_of_replication 3 6 + . Note=oriC", "sequence_feature 13 14 + . Note=dif"
    assert set(label_rows("replichore", *both, length=20)) == {IGNORED}
    assert set(label_rows("replichore", both[0], length=20, circular=True)) == {IGNORED}


def test_oric_and_dif_in_one_place_give_no_labels(label_rows: LabelRows):
    rows = "origin_of_replication 4 6 + . Note=oriC", "sequence_feature 5 5 + . Note=dif"
    assert set(label_rows("replichore", *rows, length=20, circular=True)) == {IGNORED}


def test_two_origins_on_one_contig_are_refused(label_rows: LabelRows):
    rows = [f"origin_of_replication {start} {start + 3} + . Note=oriC" for start in (3, 13)]
    with pytest.raises(UsageError, match="contig chr has 2 features with Note=oriC"):
        label_rows("replichore", *rows, circular=True)


def test_the_classes_are_exchanged_on_the_other_strand():
    labels = np.array([LEADING, LEADING, LAGGING, IGNORED], dtype=np.int8)
    assert REPLICHORE.reverse_complement(labels).tolist() == [IGNORED, LEADING, LAGGING, LAGGING]
