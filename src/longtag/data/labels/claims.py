"""Settle which feature labels a base where features overlap, whatever their order in the file."""

import numpy as np
from numpy.typing import NDArray

from longtag.data.source import IGNORED

MAX_LENGTH = 2**28 - 1
"""Lengths of features are told apart up to here: a rank holds priority and length in 31 bits."""


class Claims:
    """Labels of a contig under construction: of all features that claim a base, the highest rank wins.

    Claims of equal rank that disagree leave the base ignored. So the outcome depends neither on the order of the
    claims nor on the strand that is read, and what the annotation leaves ambiguous is not scored.
    """

    def __init__(self, length: int) -> None:
        self.labels: NDArray[np.int8] = np.zeros(length, dtype=np.int8)
        self._ranks: NDArray[np.int32] = np.zeros(length, dtype=np.int32)

    def claim(self, bases: NDArray[np.int64], label: int | NDArray[np.int8], priority: int, length: int = 0) -> None:
        """Claim `bases` (size,) for one label or, where no base is listed twice, for labels (size,).

        `priority` (1 to 7) decides first, then `length`, in bases. Unclaimed bases have label 0.
        """
        rank = (priority << 28) + min(length, MAX_LENGTH)
        held_rank, held_label = self._ranks[bases], self.labels[bases]
        held_label[(held_rank == rank) & (held_label != label)] = IGNORED
        self.labels[bases] = np.where(held_rank < rank, label, held_label)
        self._ranks[bases] = np.maximum(held_rank, rank)
