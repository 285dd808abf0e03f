import gzip
import time
from pathlib import Path

import numpy as np
import pytest

from longtag.data.fasta import COMPLEMENT, A, C, G, N, T, read_fasta
from longtag.data.genome import SHIPPED
from longtag.errors import UsageError


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "genome.fasta"
    path.write_bytes(content)
    return path


def test_contigs_come_in_the_order_of_the_file_under_the_first_word_of_their_headers(tmp_path: Path):
    contigs = read_fasta(write(tmp_path, b">two some text\nAC\nGT\n>one\tmore\nTTA\n"))
    assert list(contigs) == ["two", "one"]
    assert contigs["two"].tolist() == [A, C, G, T]
    assert contigs["one"].tolist() == [T, T, A]
    assert contigs["one"].dtype == np.uint8


def test_lower_case_uracil_and_ambiguous_codes_are_read(tmp_path: Path):
    codes = read_fasta(write(tmp_path, b">a\nacgtACGTuU\nNnRYSWKMBDHVryswkmbdhv\n"))["a"]
    assert codes.tolist() == [A, C, G, T, A, C, G, T, T, T] + [N] * 22


def test_windows_line_ends_blank_lines_and_a_missing_last_newline_change_nothing(tmp_path: Path):
    plain = read_fasta(write(tmp_path, b">a\nACGT\nAC\n>b\nGG\n"))
    untidy = read_fasta(write(tmp_path, b"\r\n\r\n>a\r\nACGT\r\n\r\nA C\r\n\r\n>b\r\n\nGG"))
    assert list(plain) == list(untidy)
    assert all(np.array_equal(plain[name], untidy[name]) for name in plain)


def test_gzip_is_told_by_content_and_not_by_name(tmp_path: Path):
    assert read_fasta(write(tmp_path, gzip.compress(b">a\nACGT\n")))["a"].tolist() == [A, C, G, T]
    plain = tmp_path / "plain.fasta.gz"
    plain.write_bytes(b">a\nGG\n")
    assert read_fasta(plain)["a"].tolist() == [G, G]


def test_the_complement_pairs_bases_and_keeps_n():
    assert COMPLEMENT[[A, C, G, T, N]].tolist() == [T, G, C, A, N]


def test_ecoli_is_read_whole_and_in_less_than_a_second():
    start = time.process_time()
    (codes,) = read_fasta(SHIPPED / "ecoli_mg1655.fasta.gz").values()
    assert time.process_time() - start < 1
    counts = np.bincount(codes, minlength=5)
    assert len(codes) == 4_641_652
    assert counts[N] == 0
    assert (counts[G] + counts[C]) / len(codes) == pytest.approx(0.508, abs=0.0005)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"\n \r\n", "the file is empty", id="blank"),
        pytest.param(gzip.compress(b""), "the file is empty", id="empty gzip"),
        pytest.param(gzip.compress(b">a\n" + bytes(65 + i % 3 for i in range(9999)))[:30], "truncated", id="truncated"),
        pytest.param(b"\x1f\x8bno gzip after all", "truncated or damaged", id="damaged"),
        pytest.param(b"LOCUS  U00096\n", "line 1: not FASTA.*'LOCUS  U00096'", id="not FASTA"),
        pytest.param(b">a\nAC\n>b\nGG\n>a\nTT\n", "line 5: contig a occurs twice", id="duplicate name"),
        pytest.param(b"> \nACGT\n", "line 1: a header without a contig name", id="no name"),
        pytest.param(b">a\nAC\n>b\n", "contig b: no sequence", id="no sequence"),
        pytest.param(b">a\nAC\n>b\nAC\n A-CT\n", "line 5, contig b: '-' is no nucleotide", id="illegal character"),
        pytest.param(b">p\nMEEPQSDPSV\n", "line 2, contig p: 'E' is no nucleotide", id="protein"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str):
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match=message) as error:
        read_fasta(path)
    assert f"fasta={path}" in str(error.value)


def test_a_missing_file_and_a_folder_are_usage_errors(tmp_path: Path):
    with pytest.raises(UsageError, match=r"fasta=.*absent\.fa: there is no such file"):
        read_fasta(tmp_path / "absent.fa")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_fasta(tmp_path)
