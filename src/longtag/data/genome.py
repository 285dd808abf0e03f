"""Genomes as a source: a class for every nucleotide, from a FASTA file and its GFF3 annotation."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from longtag.data.fasta import COMPLEMENT, read_fasta
from longtag.data.gff import Feature, read_gff
from longtag.data.labels import TRACKS, Track
from longtag.data.source import IGNORED, Block, Split, TokenIds
from longtag.data.splits import SPLITS, Blocks, make_split, read_split
from longtag.data.tokens import LONGEST_KMER, kmer_ids, vocabulary_size
from longtag.errors import UsageError

SHIPPED = Path(__file__).parent / "genomes"


@dataclass(frozen=True)
class LabelledContig:
    """A record of a genome: codes (length,) uint8 and labels (length,) int8, two bytes a base in all."""

    name: str
    codes: NDArray[np.uint8]
    labels: NDArray[np.int8]
    circular: bool


def shipped_genomes() -> tuple[str, ...]:
    """Names of the genomes that come with the package."""
    return tuple(sorted(path.name.removesuffix(".fasta.gz") for path in SHIPPED.glob("*.fasta.gz")))


class GenomeSource:
    """One label track over a genome, with nucleotides or k-mers as tokens.

    Args:
        genome: a genome that comes with the package; not used when `fasta` and `gff` are given.
        fasta: the path of a FASTA file, plain or gzip.
        gff: the path of the GFF3 file that annotates it, plain or gzip.
        track: coarse (5 classes), fine (20) or replichore (2).
        k: bases a token, 1 to 8; there is one token a base whatever k is.
        split: a json file with the intervals of train, val and test; None: the shipped genome's own, or made by rule.
        val_fraction: share of validation in a split made by rule.
        test_fraction: share of test in a split made by rule.
        split_gap: unused bases between blocks in a split made by rule.
        reverse_complement: probability that a training crop is read from the other strand.
        substitution: share of the bases of a training crop that are replaced by any of the four, labels unchanged.

    Raises UsageError for input that cannot be used; the message names the option.
    """

    def __init__(
        self,
        *,
        genome: str | None = "ecoli_mg1655",
        fasta: str | None = None,
        gff: str | None = None,
        track: Literal["coarse", "fine", "replichore"] = "coarse",
        k: int = 6,
        split: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_gap: int = 10_000,
        reverse_complement: float = 0.5,
        substitution: float = 0.0,
    ) -> None:
        if track not in TRACKS:
            raise UsageError(f"track={track}: there is no such track; choose one of {', '.join(TRACKS)}")
        if not 1 <= k <= LONGEST_KMER:
            raise UsageError(f"k={k}: must lie between 1 and {LONGEST_KMER}")
        if not 0 <= reverse_complement <= 1:
            raise UsageError(f"reverse_complement={reverse_complement}: a probability lies between 0 and 1")
        if not 0 <= substitution < 1:
            raise UsageError(
                f"substitution={substitution}: a share lies from 0 up to but not including 1, such as 0.05"
            )
        fasta_path, gff_path, split_path = _paths(genome, fasta, gff)
        split_path = split or split_path

        self.track = TRACKS[track]
        self.k = k
        self.reverse_complement = reverse_complement
        self.substitution = substitution
        self.inputs = TokenIds(vocabulary_size(k))
        self.class_names = self.track.class_names
        self.contigs = _load(fasta_path, gff_path, self.track)
        lengths = {contig.name: len(contig.codes) for contig in self.contigs}
        circular = [contig.circular for contig in self.contigs]
        if split_path:
            self._blocks: Blocks = read_split(split_path, lengths, circular)
        else:
            self._blocks = make_split(
                list(lengths.values()),
                circular,
                val_fraction=val_fraction,
                test_fraction=test_fraction,
                gap=split_gap,
            )
        self.description = self._describe(fasta or str(genome))

    def blocks(self, split: Split) -> Sequence[Block]:
        """The blocks of a split; no base lies in two splits."""
        return self._blocks[split]

    def read(
        self, block: Block, start: int, length: int, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Ids (length,) int64 and labels (length,) int64 of `length` bases from `start` on, counted from the block's.

        With `rng` the other strand is read with probability `reverse_complement`, and bases are replaced.
        """
        contig = self.contigs[block.record]
        codes = _cut(contig.codes, block.start + start, length)
        labels = _cut(contig.labels, block.start + start, length)
        if rng is not None and rng.random() < self.reverse_complement:
            codes, labels = COMPLEMENT[codes[::-1]], self.track.reverse_complement(labels)
        if rng is not None and self.substitution:
            replaced = rng.random(length, dtype=np.float32) < self.substitution
            codes = np.where(replaced, rng.integers(4, size=length, dtype=codes.dtype), codes)
        return torch.from_numpy(kmer_ids(codes, self.k)), torch.from_numpy(labels.astype(np.int64))

    def class_counts(self, split: Split) -> NDArray[np.int64]:
        """Labelled bases of each class in a split, (num_classes,)."""
        counts = np.zeros(len(self.class_names), dtype=np.int64)
        for block in self._blocks[split]:
            labels = self.contigs[block.record].labels[block.start : block.stop]
            counts += np.bincount(labels[labels != IGNORED], minlength=len(counts))
        return counts

    def _describe(self, name: str) -> str:
        sizes = ", ".join(f"{split} {sum(block.size for block in self._blocks[split]):,}" for split in SPLITS)
        contigs = f"{len(self.contigs)} contig" + ("s" if len(self.contigs) > 1 else "")
        classes = f"{len(self.class_names)} classes"
        tokens = "nucleotides" if self.k == 1 else f"{self.k}-mers"
        return f"genome {name}, {contigs}, track {self.track.name} ({classes}), {tokens}; bases: {sizes}"


def _paths(genome: str | None, fasta: str | None, gff: str | None) -> tuple[str | Path, str | Path, Path | None]:
    if fasta and gff:
        return fasta, gff, None
    if fasta or gff:
        given, missing = ("fasta", "gff") if fasta else ("gff", "fasta")
        raise UsageError(f"{given}={fasta or gff}: a genome needs both files; give {missing}=FILE too")
    if genome not in shipped_genomes():
        raise UsageError(
            f"genome={genome}: no such genome comes with longtag; there is {', '.join(shipped_genomes())}; "
            "for your own give fasta=FILE and gff=FILE"
        )
    split = SHIPPED / f"{genome}.split.json"
    return SHIPPED / f"{genome}.fasta.gz", SHIPPED / f"{genome}.gff3.gz", split if split.exists() else None


def _load(fasta: str | Path, gff: str | Path, track: Track) -> tuple[LabelledContig, ...]:
    sequences = read_fasta(fasta)
    annotation = read_gff(gff, {name: len(codes) for name, codes in sequences.items()})
    features: dict[str, list[Feature]] = defaultdict(list)
    for feature in annotation.features:
        features[feature.contig].append(feature)
    contigs = []
    for name, codes in sequences.items():
        circular = name in annotation.circular
        contigs.append(LabelledContig(name, codes, track.label(features[name], codes, circular), circular))
    if all((contig.labels == IGNORED).all() for contig in contigs):
        raise UsageError(f"track={track.name}: {gff} gives no base a label; this track needs {track.needs}")
    return tuple(contigs)


def _cut(values: NDArray, start: int, length: int) -> NDArray:
    """`length` values from `start` on, round the origin where they reach past the end."""
    stop = start + length
    if stop <= len(values):
        return values[start:stop]
    return np.concatenate([values[start:], values[: stop - len(values)]])
