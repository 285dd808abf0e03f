"""Small genomes written to files, E. coli read once, and a source that counts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longtag.data import Block, GenomeSource, Split, TokenIds

WriteGenome = Callable[..., tuple[str, str]]


@pytest.fixture
def write_genome(tmp_path: Path) -> WriteGenome:
    """A function that writes contigs and GFF rows, columns parted by blanks, and returns the two paths."""

    def write(contigs: dict[str, str], rows: Sequence[str]) -> tuple[str, str]:
        fasta, gff = tmp_path / "genome.fasta", tmp_path / "genome.gff3"
        fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs.items()))
        gff.write_text("##gff-version 3\n" + "".join("\t".join(row.split(maxsplit=8)) + "\n" for row in rows))
        return str(fasta), str(gff)

    return write


@pytest.fixture(scope="session")
def ecoli() -> GenomeSource:
    return GenomeSource(genome="ecoli_mg1655", track="coarse")


class RulerSource:
    """Token ids that tell their position: record * 1000 + position; the label is the position modulo 5."""

    inputs = TokenIds(100_000)
    class_names = ("0", "1", "2", "3", "4")
    description = "a ruler"

    def __init__(self, **blocks: Sequence[Block]) -> None:
        self._blocks = blocks

    def blocks(self, split: Split) -> Sequence[Block]:
        return self._blocks[split]

    def read(
        self, block: Block, start: int, length: int, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        positions = block.start + (start + torch.arange(length)) % block.size
        return block.record * 1000 + positions, positions % 5

    def class_counts(self, split: Split) -> np.ndarray:
        return np.bincount(
            [position % 5 for block in self._blocks[split] for position in range(block.start, block.stop)],
            minlength=5,
        )


@pytest.fixture
def ruler() -> RulerSource:
    """Two train blocks of 40 and 70 tokens, validation blocks of 25 and 7, a test block of 20."""
    return RulerSource(
        train=(Block(0, 0, 40), Block(1, 10, 80)),
        val=(Block(0, 100, 125), Block(1, 200, 207)),
        test=(Block(0, 300, 320),),
    )
