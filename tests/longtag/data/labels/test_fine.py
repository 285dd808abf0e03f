import numpy as np
import pytest

from longtag.data import GenomeSource
from longtag.data.fasta import A, C, G, T
from longtag.data.genome import SHIPPED
from longtag.data.gff import read_gff
from longtag.data.labels import FINE
from longtag.data.source import IGNORED
from tests.longtag.data.labels.conftest import LabelRows

START, PHASE, STOP, TRNA, RRNA, NCRNA = 1, 2, 5, 6, 7, 8
MINUS = 8
PSEUDOGENE, MOBILE, REP = 17, 18, 19

PUBLISHED_PERCENT = {
    "intergenic": "10.31",
    "start codon+": "0.133",
    "start codon-": "0.140",
    **{f"CDS phase {phase}+": "13.76" for phase in range(3)},
    **{f"CDS phase {phase}-": "14.62" for phase in range(3)},
    "stop codon+": "0.125",
    "stop codon-": "0.132",
    "tRNA+": "0.082",
    "tRNA-": "0.064",
    "rRNA+": "0.492",
    "rRNA-": "0.199",
    "ncRNA+": "0.128",
    "ncRNA-": "0.074",
    "pseudogene": "2.40",
    "mobile element": "0.114",
    "REP repeat": "0.476",
}


@pytest.fixture(scope="module")
def ecoli_labels(ecoli: GenomeSource) -> np.ndarray:
    (contig,) = ecoli.contigs
    features = read_gff(SHIPPED / "ecoli_mg1655.gff3.gz", {contig.name: len(contig.codes)}).features
    return FINE.label(features, contig.codes, True)


def test_ecoli_has_the_published_share_of_each_class(ecoli_labels: np.ndarray):
    counts = np.bincount(ecoli_labels[ecoli_labels != IGNORED], minlength=20)
    percent = {
        name: f"{100 * count / len(ecoli_labels):.{len(PUBLISHED_PERCENT[name].split('.')[1])}f}"
        for name, count in zip(FINE.class_names, counts, strict=True)
    }
    assert percent == PUBLISHED_PERCENT
    assert (ecoli_labels == IGNORED).sum() == 20


def test_stop_codons_of_ecoli_are_spelt_without_c_on_their_own_strand(ecoli: GenomeSource, ecoli_labels: np.ndarray):
    (contig,) = ecoli.contigs
    assert set(contig.codes[ecoli_labels == STOP]) == {A, G, T}
    assert set(contig.codes[ecoli_labels == STOP + MINUS]) == {A, C, T}


def test_codon_positions_run_with_the_strand(label_rows: LabelRows):
    forward = [START] * 3 + [PHASE, PHASE + 1, PHASE + 2] * 2 + [STOP] * 3
    labels = label_rows("fine", "CDS 1 12 + 0", "CDS 21 32 - 0")
    assert labels[:12] == forward
    assert labels[20:32] == [label + MINUS for label in reversed(forward)]


def test_rna_stands_over_start_over_stop_over_phase_over_the_rest(label_rows: LabelRows):
    labels = label_rows(
        "fine",
        "tRNA 1 1 - .",
        "CDS 1 12 + 0 ID=a",
        "CDS 10 30 + 0 ID=b",
        "pseudogene 29 36 + . ID=p",
        "mobile_genetic_element 35 42 + .",
        "repeat_region 41 45 - . Note=REP1a",
        "repeat_region 50 55 - . Note=other",
    )
    assert labels[0] == TRNA + MINUS
    assert labels[1:3] == [START] * 2
    assert labels[9:12] == [START] * 3
    assert labels[27:30] == [STOP] * 3
    assert labels[30:36] == [PSEUDOGENE] * 6
    assert labels[36:42] == [MOBILE] * 6
    assert labels[42:45] == [REP] * 3
    assert labels[45:] == [0] * 15


def test_the_longer_cds_wins_on_either_strand(label_rows: LabelRows):
    labels = label_rows("fine", "CDS 1 30 + 0", "CDS 11 37 - 0", "CDS 5 28 + 0 ID=inside")
    assert labels[13:20] == [PHASE + position % 3 for position in range(13, 20)]


def test_cds_of_one_length_that_disagree_are_ignored_and_those_that_agree_are_not(label_rows: LabelRows):
    assert label_rows("fine", "CDS 1 30 + 0", "CDS 16 45 - 0")[18:24] == [IGNORED] * 6
    assert label_rows("fine", "CDS 1 30 + 0", "CDS 17 46 + 0")[20:24] == [IGNORED] * 4
    in_step = label_rows("fine", "CDS 1 30 + 0", "CDS 16 45 + 0")
    assert in_step[18:24] == [PHASE + position % 3 for position in range(18, 24)]


def test_the_shorter_rna_gene_wins(label_rows: LabelRows):
    labels = label_rows("fine", "ncRNA 1 20 + .", "ncRNA 6 15 - .")
    assert labels[:20] == [NCRNA] * 5 + [NCRNA + MINUS] * 10 + [NCRNA] * 5


def test_other_rna_counts_as_ncrna(label_rows: LabelRows):
    assert label_rows("fine", "RNase_P_RNA 1 2 + .", "rRNA 3 4 + .", "tmRNA 5 6 - .")[:6] == [
        *[NCRNA] * 2,
        *[RRNA] * 2,
        *[NCRNA + MINUS] * 2,
    ]


@pytest.mark.parametrize("strand", "+-")
def test_phase_follows_the_spliced_bases_behind_a_skipped_one(label_rows: LabelRows, strand: str):
    if strand == "+":
        labels = label_rows("fine", "CDS 1 7 + 0 ID=x", "CDS 9 19 + 0 ID=x")
    else:
        labels = label_rows("fine", "CDS 42 52 - 0 ID=x", "CDS 54 60 - 0 ID=x")[::-1]
    expected = [START] * 3 + [PHASE, PHASE + 1, PHASE + 2, PHASE, 0] + [PHASE + 1, PHASE + 2]
    offset = MINUS if strand == "-" else 0
    assert labels[:10] == [label + offset if label else 0 for label in expected]
    assert labels[16:19] == [STOP + offset] * 3


def test_of_a_base_that_two_parts_share_the_first_reading_counts(label_rows: LabelRows):
    labels = label_rows("fine", "CDS 1 6 + 0 ID=x", "CDS 6 16 + 0 ID=x")
    assert labels[3:8] == [PHASE, PHASE + 1, PHASE + 2, PHASE + 1, PHASE + 2]
    assert labels[13:16] == [STOP] * 3


@pytest.mark.parametrize(
    ("row", "start", "stop"),
    [
        ("CDS 1 12 + 0 partial=true start_range=.,1", False, True),
        ("CDS 1 12 + 0 partial=true end_range=12,.", True, False),
        ("CDS 1 12 - 0 partial=true start_range=.,1", True, False),
        ("CDS 1 12 - 0 partial=true end_range=12,.", False, True),
        ("CDS 1 12 + 0 partial=true", False, False),
    ],
)
def test_the_open_end_of_a_partial_cds_has_no_codon_of_its_own(
    label_rows: LabelRows, row: str, start: bool, stop: bool
):
    labels = label_rows("fine", row)[:12]
    offset = MINUS if " - " in row else 0
    assert (labels.count(START + offset), labels.count(STOP + offset)) == (3 * start, 3 * stop)


def test_the_phase_column_says_where_the_first_codon_of_a_partial_cds_begins(label_rows: LabelRows):
    forward = label_rows("fine", "CDS 1 8 + 2 partial=true start_range=.,1 end_range=8,.")[:8]
    assert forward == [PHASE + 1, PHASE + 2, PHASE, PHASE + 1, PHASE + 2, PHASE, PHASE + 1, PHASE + 2]
    backward = label_rows("fine", "CDS 53 60 - 2 partial=true start_range=.,53 end_range=60,.")[::-1][:8]
    assert backward == [label + MINUS for label in forward]


def test_the_phase_of_a_spliced_cds_is_that_of_the_part_where_translation_begins(label_rows: LabelRows):
    forward = label_rows("fine", "CDS 1 6 + 1 ID=x partial=true", "CDS 9 20 + 0 ID=x")[:6]
    assert forward == [PHASE + 2, PHASE, PHASE + 1, PHASE + 2, PHASE, PHASE + 1]
    backward = label_rows("fine", "CDS 41 52 - 0 ID=x partial=true", "CDS 55 60 - 1 ID=x")[::-1][:6]
    assert backward == [label + MINUS for label in forward]


def test_a_cds_that_begins_inside_a_codon_has_no_start_codon(label_rows: LabelRows):
    assert label_rows("fine", "CDS 1 11 + 2")[:5] == [PHASE + 1, PHASE + 2, PHASE, PHASE + 1, PHASE + 2]


def test_codons_run_on_round_the_origin(label_rows: LabelRows):
    labels = label_rows("fine", "CDS 57 68 + 0", circular=True)
    in_rows = label_rows("fine", "CDS 1 8 + 0 ID=x", "CDS 57 60 + 0 ID=x", circular=True)
    assert labels == in_rows
    assert labels[56:] == [START, START, START, PHASE]
    assert labels[:8] == [PHASE + 1, PHASE + 2, PHASE, PHASE + 1, PHASE + 2, STOP, STOP, STOP]


def test_n_is_ignored(label_rows: LabelRows):
    assert label_rows("fine", "CDS 1 12 + 0", ns=[4, 50])[4] == IGNORED
