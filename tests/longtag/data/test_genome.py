import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from longtag.data import IGNORED, Block, GenomeSource, TokenIds, shipped_genomes
from longtag.data.genome import SHIPPED
from longtag.errors import UsageError
from tests.longtag.data.conftest import WriteGenome

ROWS = ["chr s region 1 60 . + . ID=chr;Is_circular=true", "chr s CDS 4 12 . + 0 ID=a", "chr s CDS 31 42 . - 0 ID=b"]
SEQUENCE = "ACGTN" * 12


@pytest.fixture
def small(write_genome: WriteGenome, tmp_path: Path) -> dict[str, str]:
    """Arguments for a circle of 60 bases that is all training, beside a contig for validation and test."""
    fasta, gff = write_genome({"chr": SEQUENCE, "rest": "ACGTACGT"}, ROWS)
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": {"chr": [[0, 60]]}, "val": {"rest": [[0, 3]]}, "test": {"rest": [[4, 8]]}}))
    return {"fasta": fasta, "gff": gff, "split": str(split)}


def test_the_shipped_files_have_their_checksums():
    lines = (SHIPPED / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    assert set(sums) == {path.name for path in SHIPPED.iterdir()} - {"README.md", "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == digest


def test_the_shipped_genome_uses_its_own_split(ecoli: GenomeSource):
    intervals = json.loads((SHIPPED / "ecoli_mg1655.split.json").read_text())
    assert ecoli.blocks("val") == tuple(Block(0, *interval) for interval in intervals["val"])
    assert [sum(block.size for block in ecoli.blocks(split)) for split in ("train", "val", "test")] == [
        3_561_652,
        400_000,
        600_000,
    ]


def test_a_genome_takes_two_bytes_a_base_and_loads_within_three_seconds():
    start = time.process_time()
    source = GenomeSource(track="fine")
    assert time.process_time() - start < 3
    (contig,) = source.contigs
    assert contig.codes.nbytes + contig.labels.nbytes == 2 * 4_641_652


def test_a_source_tells_its_inputs_classes_and_sizes(ecoli: GenomeSource):
    assert ecoli.inputs == TokenIds(4097)
    assert ecoli.class_names == ("intergenic", "CDS+", "CDS-", "RNA+", "RNA-")
    assert ecoli.description == (
        "genome ecoli_mg1655, 1 contig, track coarse (5 classes), 6-mers; "
        "bases: train 3,561,652, val 400,000, test 600,000"
    )


def test_class_counts_are_those_of_the_labels_that_are_read(ecoli: GenomeSource):
    labels = torch.cat([ecoli.read(block, 0, block.size)[1] for block in ecoli.blocks("test")])
    assert ecoli.class_counts("test").tolist() == torch.bincount(labels[labels != IGNORED], minlength=5).tolist()
    assert ecoli.class_counts("test").max() / (labels != IGNORED).sum() == pytest.approx(0.44, abs=0.03)


def test_without_rng_tokens_and_labels_come_as_they_are(small: dict[str, str]):
    source = GenomeSource(**small, k=1)  # pyright: ignore[reportArgumentType]
    (block,) = source.blocks("train")
    ids, labels = source.read(block, 2, 8)
    assert ids.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    assert labels.tolist() == [0, 1, IGNORED, 1, 1, 1, 1, IGNORED]
    assert (ids.dtype, labels.dtype) == (torch.int64, torch.int64)


def test_a_crop_of_a_circle_runs_on_round_the_origin(small: dict[str, str]):
    source = GenomeSource(**small, k=1)  # pyright: ignore[reportArgumentType]
    (block,) = source.blocks("train")
    assert block.circular
    ids, labels = source.read(block, 58, 8)
    assert ids.tolist() == [3, 4, 0, 1, 2, 3, 4, 0]
    assert labels.tolist() == [0, IGNORED, 0, 0, 0, 1, IGNORED, 1]


def test_augmentation_reads_the_other_strand_with_the_given_probability(small: dict[str, str]):
    def crops(probability: float) -> list[list[list[int]]]:
        source = GenomeSource(**small, k=1, reverse_complement=probability)  # pyright: ignore[reportArgumentType]
        (block,) = source.blocks("train")
        return [[t.tolist() for t in source.read(block, 0, 12, np.random.default_rng(i))] for i in range(400)]

    plain, turned = crops(0.0)[0], crops(1.0)[0]
    assert turned[0] == [[3, 2, 1, 0, 4][token] for token in reversed(plain[0])]
    assert turned[1] == [{1: 2}.get(label, label) for label in reversed(plain[1])]
    mixed = crops(0.25)
    assert all(crop in (plain, turned) for crop in mixed)
    assert 0.18 < sum(crop == turned for crop in mixed) / 400 < 0.32


def test_a_share_of_the_bases_of_a_training_crop_is_replaced_and_no_label(ecoli: GenomeSource):
    source = GenomeSource(k=1, reverse_complement=0.0, substitution=0.2)
    block = source.blocks("train")[0]
    as_it_is, labels = source.read(block, 0, 100_000)
    crops = [source.read(block, 0, 100_000, np.random.default_rng(seed)) for seed in range(2)]
    for ids, crop_labels in crops:
        changed = ids != as_it_is
        # One in four of those drawn is replaced by itself.
        assert float(changed.float().mean()) == pytest.approx(0.2 * 3 / 4, abs=0.01)
        assert torch.bincount(ids[changed], minlength=4).min() > 3000
        assert torch.equal(crop_labels, labels)
    assert not torch.equal(crops[0][0], crops[1][0])
    assert torch.equal(source.read(block, 0, 100_000)[0], as_it_is)


def test_targets_are_never_read_outside_the_split(ecoli: GenomeSource):
    used = np.zeros(4_641_652, dtype=int)
    for split in ("train", "val", "test"):
        for block in ecoli.blocks(split):
            used[block.start : block.stop] += 1
    assert used.max() == 1
    assert (used == 0).sum() == 4_641_652 - 3_561_652 - 400_000 - 600_000


def test_a_genome_without_a_split_file_is_split_by_rule(write_genome: WriteGenome):
    fasta, gff = write_genome({"chr": "ACGT" * 1000}, ["chr s CDS 4 12 . + 0 ID=a"])
    source = GenomeSource(fasta=fasta, gff=gff, val_fraction=0.2, test_fraction=0.1, split_gap=10)
    sizes = [sum(block.size for block in source.blocks(split)) for split in ("train", "val", "test")]
    assert np.array(sizes) / sum(sizes) == pytest.approx([0.7, 0.2, 0.1], abs=0.01)


def test_every_contig_is_labelled_by_its_own_rows(write_genome: WriteGenome):
    rows = [
        "a s gene 1 30 . + . ID=g1",
        "a s CDS 1 30 . + 1 ID=c1;Parent=g1;partial=true;start_range=.,1",
        "a s CDS 41 70 . - 0 ID=c2",
        "b s pseudogene 11 20 . + . ID=p1",
        "b s CDS 11 20 . + 0 ID=c3;Parent=p1",
        "b s tmRNA 31 35 . - . ID=r1",
    ]
    contigs = {"a": "ACGT" * 25, "b": "ACGTN" * 20, "c": "ACGT" * 25}
    fasta, gff = write_genome(contigs, rows)
    source = GenomeSource(fasta=fasta, gff=gff, split_gap=0)
    found = [np.unique(contig.labels, return_counts=True) for contig in source.contigs]
    assert [dict(zip(labels.tolist(), counts.tolist(), strict=True)) for labels, counts in found] == [
        {IGNORED: 30, 0: 40, 2: 30},
        {IGNORED: 10 + 18, 0: 100 - 28 - 4, 4: 4},
        {0: 100},
    ]


def test_own_files_take_the_place_of_the_shipped_genome(small: dict[str, str]):
    source = GenomeSource(genome="ecoli_mg1655", **small)  # pyright: ignore[reportArgumentType]
    assert [contig.name for contig in source.contigs] == ["chr", "rest"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"genome": "ecoli"}, f"genome=ecoli: no such genome.*{', '.join(shipped_genomes())}.*fasta=FILE and gff=FILE"),
        ({"genome": None}, "genome=None: no such genome"),
        ({"fasta": "x.fa"}, "fasta=x.fa: a genome needs both files; give gff=FILE too"),
        ({"gff": "x.gff"}, "gff=x.gff: a genome needs both files; give fasta=FILE too"),
        ({"track": "medium"}, "track=medium: there is no such track; choose one of coarse, fine, replichore"),
        ({"k": 0}, "k=0: must lie between 1 and 8"),
        ({"k": 9}, "k=9: must lie between 1 and 8"),
        ({"reverse_complement": 1.5}, "reverse_complement=1.5: a probability lies between 0 and 1"),
        ({"substitution": 1.0}, "substitution=1.0: a share lies from 0 up to but not including 1, such as 0.05"),
    ],
)
def test_an_option_that_cannot_be_met_is_named_with_the_way_out(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        GenomeSource(**options)


def test_the_replichore_of_a_genome_without_oric_and_dif_is_refused(small: dict[str, str]):
    with pytest.raises(UsageError, match=r"track=replichore: .*Note=oriC and one with Note=dif.*choose track=coarse"):
        GenomeSource(**small, track="replichore")  # pyright: ignore[reportArgumentType]
