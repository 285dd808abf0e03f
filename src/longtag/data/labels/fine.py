"""Track `fine`: codon position, start and stop codons, kinds of RNA and repeats; 20 classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longtag.data.fasta import N
from longtag.data.gff import Feature
from longtag.data.labels.claims import MAX_LENGTH, Claims
from longtag.data.labels.kinds import Kind, bases_of, is_partial, kind_of
from longtag.data.labels.track import Track
from longtag.data.source import IGNORED

_STRANDED = ("start codon", "CDS phase 0", "CDS phase 1", "CDS phase 2", "stop codon", "tRNA", "rRNA", "ncRNA")
_START, _PHASE_0, _STOP, _TRNA = 1, 2, 5, 6
_FIRST_OF_STRAND = {"+": 0, "-": len(_STRANDED)}
_RNA = {Kind.TRNA: _TRNA, Kind.RRNA: _TRNA + 1, Kind.NCRNA: _TRNA + 2}
_PSEUDOGENE, _MOBILE_ELEMENT, _REP = 17, 18, 19

_UNSTRANDED = {Kind.REP: (_REP, 1), Kind.MOBILE_ELEMENT: (_MOBILE_ELEMENT, 2), Kind.PSEUDOGENE: (_PSEUDOGENE, 3)}
"""Label and priority. Codons follow with 4 (inside), 5 (stop) and 6 (start), RNA with 7."""


def _label(features: Sequence[Feature], codes: NDArray[np.uint8], circular: bool) -> NDArray[np.int8]:
    claims = Claims(len(codes))
    for feature in features:
        kind = kind_of(feature)
        if kind is Kind.CDS:
            _claim_codons(claims, feature, len(codes))
        elif kind in _RNA:
            # The shorter RNA gene wins, or one that lies inside another would vanish.
            bases = bases_of(feature, len(codes))
            label = _FIRST_OF_STRAND[feature.strand] + _RNA[kind]
            claims.claim(bases, label, priority=7, length=MAX_LENGTH - len(bases))
        elif kind in _UNSTRANDED:
            label, priority = _UNSTRANDED[kind]
            claims.claim(bases_of(feature, len(codes)), label, priority)
    claims.labels[codes == N] = IGNORED
    return claims.labels


def _claim_codons(claims: Claims, feature: Feature, contig_length: int) -> None:
    """Phases follow the spliced bases, so that they stay right behind a frameshift; the longer CDS wins."""
    bases = bases_of(feature, contig_length)
    size, first_class = len(bases), _FIRST_OF_STRAND[feature.strand]
    skipped = feature.parts[0 if feature.strand == "+" else -1].phase or 0
    labels = (first_class + _PHASE_0 + (np.arange(size) - skipped) % 3).astype(np.int8)
    has_start, has_stop = _complete_ends(feature)
    start_codon = bases[:3] if has_start and not skipped else bases[:0]
    stop_codon = bases[-3:] if has_stop else bases[:0]
    if len(feature.parts) > 1:
        # Of a base that is read twice, the first reading counts.
        bases, first_readings = np.unique(bases, return_index=True)
        labels = labels[first_readings]
    claims.claim(bases, labels, priority=4, length=size)
    claims.claim(stop_codon, first_class + _STOP, priority=5, length=size)
    claims.claim(start_codon, first_class + _START, priority=6, length=size)


def _complete_ends(feature: Feature) -> tuple[bool, bool]:
    """Whether the start codon and the stop codon of a CDS are there.

    A partial CDS names its open ends by start_range (the left one) and end_range; without either, both may be open.
    """
    left = "start_range" not in feature.attributes
    right = "end_range" not in feature.attributes
    if is_partial(feature) and left and right:
        left = right = False
    return (left, right) if feature.strand == "+" else (right, left)


def _names(strand: str) -> tuple[str, ...]:
    return tuple(f"{name}{strand}" for name in _STRANDED)


FINE = Track(
    name="fine",
    class_names=("intergenic", *_names("+"), *_names("-"), "pseudogene", "mobile element", "REP repeat"),
    opposite=(0, *range(9, 17), *range(1, 9), _PSEUDOGENE, _MOBILE_ELEMENT, _REP),
    label=_label,
    needs="CDS rows in the GFF file",
)
