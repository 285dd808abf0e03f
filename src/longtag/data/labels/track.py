"""A label track: its classes, how a contig is labelled, and what the labels become on the other strand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longtag.data.gff import Feature

Labeller = Callable[[Sequence[Feature], NDArray[np.uint8], bool], NDArray[np.int8]]
"""(features of one contig, its codes (length,), whether it is circular) -> labels (length,), IGNORED where none."""


@dataclass(frozen=True)
class Track:
    """One set of labels over a sequence.

    `opposite[c]` is the class of a base of class c when the other strand is read; `label` must agree with it: labels of
    the reverse complement are the reversed labels with classes exchanged. `needs` says what a genome must have.
    """

    name: str
    class_names: tuple[str, ...]
    opposite: tuple[int, ...]
    label: Labeller
    needs: str

    def reverse_complement(self, labels: NDArray[np.int8]) -> NDArray[np.int8]:
        """Labels (length,) of the other strand, read in its own direction."""
        table = np.arange(256, dtype=np.uint8).view(np.int8)
        table[: len(self.opposite)] = self.opposite
        return table[labels[::-1].view(np.uint8)]
