"""Read FASTA into one uint8 code a base."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longtag.data.reading import open_input
from longtag.errors import UsageError

A, C, G, T, N = range(5)
"""Codes of the bases. A and T, C and G add up to 3; N stands for every base that is not known for certain."""

COMPLEMENT = np.array([T, G, C, A, N], dtype=np.uint8)

_ILLEGAL = b"\xff"
_BLANKS = b" \t\r\n"


def _code_table() -> bytes:
    table = bytearray(_ILLEGAL * 256)
    for letters, code in (("A", A), ("C", C), ("G", G), ("TU", T), ("NRYSWKMBDHV", N)):
        for letter in letters + letters.lower():
            table[ord(letter)] = code
    return bytes(table)


_CODES = _code_table()


def read_fasta(path: str | Path, option: str = "fasta") -> dict[str, NDArray[np.uint8]]:
    """Contigs of a FASTA file, plain or gzip, by name (the header up to its first blank), in the file's order.

    Codes are A 0, C 1, G 2, T and U 3; N and the IUPAC codes of ambiguous bases are 4. Case does not matter.

    Raises UsageError, which names `option`, for a file that is missing, empty, truncated or not FASTA, a contig name
    that occurs twice, a contig without sequence, and a character that is no nucleotide (with contig and line).
    """
    contigs: dict[str, bytearray] = {}
    name, sequence = "", bytearray()
    with open_input(path, option) as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith(b">"):
                name = _contig_name(line)
                if not name or name in contigs:
                    fault = f"contig {name} occurs twice" if name else "a header without a contig name"
                    raise UsageError(f"{option}={path}, line {number}: {fault}; every contig needs a name of its own")
                sequence = contigs[name] = bytearray()
                continue
            codes = line.translate(_CODES, _BLANKS)
            if codes and not contigs:
                raise UsageError(
                    f"{option}={path}, line {number}: not FASTA: expected a header such as '>contig_1', "
                    f"found {line[:40].decode(errors='replace').strip()!r}"
                )
            if _ILLEGAL in codes:
                character = chr(line.translate(None, _BLANKS)[codes.index(_ILLEGAL)])
                raise UsageError(
                    f"{option}={path}, line {number}, contig {name}: {character!r} is no nucleotide; "
                    "allowed are A C G T U, N and the IUPAC codes R Y S W K M B D H V, in either case"
                )
            sequence += codes
    if not contigs:
        raise UsageError(f"{option}={path}: the file is empty; a FASTA file needs one contig at least")
    for name, sequence in contigs.items():
        if not sequence:
            raise UsageError(f"{option}={path}, contig {name}: no sequence follows the header; remove it or fill it")
    return {name: np.frombuffer(sequence, dtype=np.uint8).copy() for name, sequence in contigs.items()}


def _contig_name(header: bytes) -> str:
    words = header[1:].split(maxsplit=1)
    return words[0].decode(errors="replace") if words else ""
