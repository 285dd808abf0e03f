"""Random vectors with random labels: the input of a benchmark. There is nothing in it to learn."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from longtag.data.source import Block, Split, Vectors
from longtag.data.splits import SPLITS
from longtag.errors import UsageError


class SyntheticSource:
    """One sequence a split, made from the seed when it is first read and then kept: 4 * width + 8 bytes a token.

    Args:
        length: tokens in each sequence.
        width: numbers in each vector, drawn from the standard normal distribution.
        num_classes: labels are drawn from this many classes, all equally likely.
        seed: each seed and split gives a sequence of its own.
    """

    def __init__(self, *, length: int, width: int = 768, num_classes: int = 1000, seed: int = 0) -> None:
        for name, value in (("length", length), ("width", width), ("num_classes", num_classes)):
            if value < 1:
                raise UsageError(f"{name}={value}: must be 1 or more")
        if seed < 0:
            raise UsageError(f"seed={seed}: must be 0 or more")
        self.inputs = Vectors(width)
        self.class_names = tuple(f"class {label}" for label in range(num_classes))
        self.description = f"synthetic, {length:,} random vectors of {width} a split, {num_classes} random classes"
        self._length = length
        self._seed = seed
        self._sequences: dict[int, tuple[Tensor, Tensor]] = {}

    def blocks(self, split: Split) -> Sequence[Block]:
        """One block, the whole sequence of the split."""
        return (Block(SPLITS.index(split), 0, self._length),)

    def read(
        self, block: Block, start: int, length: int, rng: np.random.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Views of the sequence: vectors (length, width) float32 and labels (length,) int64. Nothing is augmented."""
        vectors, labels = self._sequence(block.record)
        return vectors[start : start + length], labels[start : start + length]

    def class_counts(self, split: Split) -> np.ndarray:
        """Tokens of each class in a split, int64 (num_classes,)."""
        _, labels = self._sequence(SPLITS.index(split))
        return torch.bincount(labels, minlength=len(self.class_names)).numpy()

    def _sequence(self, record: int) -> tuple[Tensor, Tensor]:
        if record not in self._sequences:
            generator = torch.Generator().manual_seed(self._seed * len(SPLITS) + record)
            labels = torch.randint(len(self.class_names), (self._length,), generator=generator)
            vectors = torch.randn(self._length, self.inputs.width, generator=generator)
            self._sequences[record] = vectors, labels
        return self._sequences[record]
