"""Nucleotides and overlapping k-mers as token ids: one token a base, so that length never changes."""

import numpy as np
from numpy.typing import NDArray

from longtag.data.fasta import N

LONGEST_KMER = 8


def vocabulary_size(k: int) -> int:
    """4^k k-mers, and one id for those that hold an N or reach past an end of the sequence."""
    return 4**k + 1


def kmer_ids(codes: NDArray[np.uint8], k: int) -> NDArray[np.int64]:
    """Ids (length,) int64 of the k-mers centred on each base of `codes` (length,), as `read_fasta` gives them.

    Token i covers bases i - (k - 1) // 2 to i + k // 2; its id reads them as digits in base 4, the first the highest.
    With k = 1 the ids are the codes themselves.
    """
    before, after = (k - 1) // 2, k // 2
    padded = np.pad(codes, (before, after), constant_values=N)
    ids = np.zeros(len(codes), dtype=np.int64)
    unknown = np.zeros(len(codes), dtype=bool)
    for offset in range(k):
        digits = padded[offset : offset + len(codes)]
        ids *= 4
        ids += digits
        unknown |= digits == N
    ids[unknown] = 4**k
    return ids
