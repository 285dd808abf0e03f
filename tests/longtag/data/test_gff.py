import gzip
from pathlib import Path

import pytest

from longtag.data.gff import Annotation, Feature, Part, read_gff
from longtag.errors import UsageError

CDS = "chr\tsource\tCDS\t10\t21\t.\t+\t0\tID=cds-1;Parent=gene-1"
CIRCLE = "chr\tsource\tregion\t1\t100\t.\t+\t.\tID=chr;Is_circular=true"


def read(tmp_path: Path, *lines: str) -> Annotation:
    path = tmp_path / "genome.gff3"
    path.write_text("##gff-version 3\n" + "\n".join(lines) + "\n")
    return read_gff(path, {"chr": 100, "other": 50})


def features_of(annotation: Annotation, kind: str) -> list[Feature]:
    return [feature for feature in annotation.features if feature.type == kind]


def test_coordinates_become_half_open_and_count_from_zero(tmp_path: Path):
    (feature,) = read(tmp_path, CDS).features
    assert (feature.contig, feature.type, feature.strand, feature.pseudogene) == ("chr", "CDS", "+", False)
    assert feature.parts == (Part(9, 21, 0),)


def test_gzip_comments_blank_lines_and_windows_line_ends_change_nothing(tmp_path: Path):
    path = tmp_path / "genome.gff3"
    path.write_bytes(gzip.compress(f"##gff-version 3\r\n# a remark\r\n\r\n{CDS}\r\n###\r\n".encode()))
    assert read_gff(path, {"chr": 100}) == read(tmp_path, CDS)


def test_ids_parents_and_values_are_percent_decoded(tmp_path: Path):
    (feature,) = read(tmp_path, CDS.replace("cds-1", "cds-gnl|b0240|CDS%3D288") + ";Note=a%3Bb%2Cc").features
    assert feature.attributes["ID"] == "cds-gnl|b0240|CDS=288"
    assert feature.attributes["Note"] == "a;b,c"


def test_an_encoded_parent_is_matched_with_its_plain_id(tmp_path: Path):
    gene = "chr\ts\tpseudogene\t1\t30\t.\t+\t.\tID=gene=1"
    (cds,) = features_of(read(tmp_path, gene, CDS.replace("gene-1", "gene%3D1")), "CDS")
    assert cds.pseudogene


def test_rows_of_one_id_are_one_feature_with_ascending_parts(tmp_path: Path):
    rows = [f"chr\ts\tCDS\t{start}\t{stop}\t.\t-\t{phase}\tID=x" for start, stop, phase in ((60, 70, 0), (20, 35, 1))]
    (feature,) = read(tmp_path, *rows).features
    assert feature.parts == (Part(19, 35, 1), Part(59, 70, 0))


def test_cds_rows_without_id_are_grouped_by_their_parent(tmp_path: Path):
    rows = [
        f"chr\ts\tCDS\t{start}\t{start + 2}\t.\t+\t0\tParent={parent}"
        for start, parent in ((1, "a"), (7, "b"), (20, "a"))
    ]
    assert [feature.parts for feature in read(tmp_path, *rows).features] == [
        (Part(0, 3, 0), Part(19, 22, 0)),
        (Part(6, 9, 0),),
    ]


def test_equal_ids_on_different_contigs_strands_or_parents_stay_apart(tmp_path: Path):
    annotation = read(
        tmp_path, CDS, CDS.replace("chr", "other"), CDS.replace("+", "-"), CDS.replace("gene-1", "gene-2")
    )
    assert len(annotation.features) == 4


def test_a_pseudogene_mark_reaches_children_and_grandchildren_in_any_order(tmp_path: Path):
    annotation = read(
        tmp_path,
        "chr\ts\tCDS\t1\t9\t.\t+\t0\tParent=piece",
        "chr\ts\tpiece\t1\t9\t.\t+\t.\tID=piece;Parent=transcript",
        "chr\ts\ttranscript\t1\t9\t.\t+\t.\tID=transcript;Parent=gene",
        "chr\ts\tgene\t1\t9\t.\t+\t.\tID=gene;pseudo=true",
        "chr\ts\tCDS\t30\t38\t.\t+\t0\tID=real;Parent=real-gene",
    )
    assert [feature.pseudogene for feature in annotation.features] == [True, True, True, True, False]


def test_parents_that_go_in_a_circle_end(tmp_path: Path):
    annotation = read(
        tmp_path, "chr\ts\tCDS\t1\t9\t.\t+\t0\tID=a;Parent=b", "chr\ts\tgene\t1\t9\t.\t+\t.\tID=b;Parent=a;pseudo=true"
    )
    assert all(feature.pseudogene for feature in annotation.features)


def test_a_feature_may_cross_the_origin_of_a_circular_contig_only(tmp_path: Path):
    crossing = CDS.replace("10\t21", "95\t106")
    annotation = read(tmp_path, CIRCLE, crossing)
    assert annotation.circular == {"chr"}
    assert features_of(annotation, "CDS")[0].parts == (Part(94, 106, 0),)
    with pytest.raises(UsageError, match="line 2: end 106 lies outside contig chr of 100 bases"):
        read(tmp_path, crossing)


@pytest.mark.parametrize(("start", "stop"), [(101, 106), (50, 150)])
def test_on_a_circle_a_feature_begins_on_the_contig_and_is_not_longer(tmp_path: Path, start: int, stop: int):
    with pytest.raises(UsageError, match=f"line 3: end {stop} lies outside contig chr"):
        read(tmp_path, CIRCLE, CDS.replace("10\t21", f"{start}\t{stop}"))


def test_a_feature_cut_in_two_at_the_origin_keeps_the_order_of_its_parts(tmp_path: Path):
    rows = [CDS.replace("10\t21", "1\t6"), CDS.replace("10\t21", "95\t100")]
    assert features_of(read(tmp_path, CIRCLE, *rows), "CDS")[0].parts == (Part(94, 100, 0), Part(0, 6, 0))
    assert features_of(read(tmp_path, *rows), "CDS")[0].parts == (Part(0, 6, 0), Part(94, 100, 0))


def test_an_embedded_fasta_section_ends_the_features(tmp_path: Path):
    assert len(read(tmp_path, CDS, "##FASTA", ">chr", "ACGT").features) == 1
    assert len(read(tmp_path, CDS, ">chr", "ACGT").features) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(
            CDS.replace("chr", "chr1"), "contig 'chr1' is not in the FASTA file, which has chr, other", id="contig"
        ),
        pytest.param(CDS.replace("21", "101"), "end 101 lies outside contig chr of 100 bases", id="outside"),
        pytest.param(CDS.replace("21", "9"), "end 9 lies before start 10", id="end before start"),
        pytest.param(CDS.replace("10", "0"), "GFF3 counts bases from 1", id="start 0"),
        pytest.param(CDS.rpartition("\t")[0], "expected 9 columns parted by tabs, found 8", id="columns"),
        pytest.param(CDS.replace("\t", " "), "expected 9 columns parted by tabs, found 1", id="blanks"),
        pytest.param(CDS.replace("10", "ten"), "start 'ten' and end '21' must be whole numbers", id="no integer"),
        pytest.param(CDS.replace("10", "-10"), "start '-10' and end '21' must be whole numbers", id="negative"),
        pytest.param(CDS.replace("+", "."), "strand '.' of a CDS row must be \\+ or -", id="CDS without strand"),
        pytest.param(CDS.replace("+", "1").replace("CDS", "gene"), "strand '1' of a gene row", id="strand"),
        pytest.param(CDS.replace("+\t0", "+\t3"), "phase '3' of a CDS row must be 0, 1 or 2", id="phase"),
        pytest.param(CDS.replace("+\t0", "+\t."), "phase '.' of a CDS row must be 0, 1 or 2", id="CDS without phase"),
    ],
)
def test_a_row_that_cannot_be_right_is_shown_with_its_line(tmp_path: Path, row: str, message: str):
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path, CDS, row)
    assert ", line 3: " in str(error.value)
    assert row in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"##gff-version 3\n# nothing\n", "no feature row", id="comments only"),
        pytest.param(gzip.compress(CDS.encode() * 99)[:40], "truncated", id="truncated gzip"),
        pytest.param(CDS.replace("CDS", "gene").encode(), "no CDS among 1 rows", id="no CDS"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "bad.gff3"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read_gff(path, {"chr": 100})
    assert f"gff={path}" in str(error.value)


def test_a_missing_file_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match=r"gff=.*absent\.gff: there is no such file"):
        read_gff(tmp_path / "absent.gff", {"chr": 100})
