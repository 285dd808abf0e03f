"""What the rest of the application knows about data: the protocol that every source of labelled sequences fulfils."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

Split = Literal["train", "val", "test"]

IGNORED = -100
"""The label of a token that is neither trained on nor scored; the ignore_index of torch's cross-entropy."""


Crop = tuple[Tensor, ...]
"""Inputs, labels and, from a source that knows them, distances: what `Source.read` returns."""


@dataclass(frozen=True)
class TokenIds:
    """Inputs are token ids in [0, vocabulary_size)."""

    vocabulary_size: int


@dataclass(frozen=True)
class Vectors:
    """Inputs are float vectors of `width` numbers a token."""

    width: int


@dataclass(frozen=True)
class Block:
    """A stretch of one record from which crops may be cut: tokens [start, stop) of record number `record`.

    `circular` marks a block that is a whole circle: a crop may begin at any token and run past `stop` to `start`.
    """

    record: int
    start: int
    stop: int
    circular: bool = False

    @property
    def size(self) -> int:
        return self.stop - self.start


class Source(Protocol):
    """Labelled sequences, split into blocks. One class and one yaml file add a source; nothing else changes."""

    @property
    def inputs(self) -> TokenIds | Vectors:
        """What `read` gives as inputs."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each label."""
        ...

    @property
    def description(self) -> str:
        """One line for the block that a run prints at its start."""
        ...

    def blocks(self, split: Split) -> Sequence[Block]:
        """The blocks of a split; no token lies in two splits."""
        ...

    def read(self, block: Block, start: int, length: int, rng: np.random.Generator | None = None) -> Crop:
        """Cut `length` tokens from a block, beginning `start` tokens after the block's start.

        Returns inputs, ids (length,) int64 or vectors (length, width) float32, and labels (length,) int64 with
        `IGNORED` where there is none. With `rng`, which means training, the source augments as it sees fit.

        A source that knows how far away lies what a label follows from returns that as a third tensor: distances
        (length,) int32 in tokens, read where there is a label. Accuracy is then scored by distance, too.
        """
        ...

    def class_counts(self, split: Split) -> np.ndarray:
        """Labelled tokens of each class in a split, int64 (num_classes,)."""
        ...
