"""Labelled sequences, from files to batches."""

from longtag.data.datamodule import CropDataModule
from longtag.data.genome import GenomeSource, shipped_genomes
from longtag.data.recall import RecallSource
from longtag.data.source import IGNORED, Block, Crop, Source, Split, TokenIds, Vectors
from longtag.data.synthetic import SyntheticSource

__all__ = [
    "IGNORED",
    "Block",
    "Crop",
    "CropDataModule",
    "GenomeSource",
    "RecallSource",
    "Source",
    "Split",
    "SyntheticSource",
    "TokenIds",
    "Vectors",
    "shipped_genomes",
]
