"""Track `coarse`: what a base does, on which strand; 5 classes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longtag.data.fasta import N
from longtag.data.gff import Feature
from longtag.data.labels.claims import Claims
from longtag.data.labels.kinds import RNA_KINDS, Kind, bases_of, is_partial, kind_of
from longtag.data.labels.track import Track
from longtag.data.source import IGNORED

_CDS = {"+": 1, "-": 2}
_RNA = {"+": 3, "-": 4}


def _label(features: Sequence[Feature], codes: NDArray[np.uint8], circular: bool) -> NDArray[np.int8]:
    """RNA stands over CDS, CDS over pseudogenes, which are ignored, as are partial CDS.

    CDS on both strands, or RNA on both strands, disagree at equal rank and are ignored too.
    """
    claims = Claims(len(codes))
    for feature in features:
        kind = kind_of(feature)
        if kind is Kind.PSEUDOGENE:
            label, priority = IGNORED, 1
        elif kind is Kind.CDS:
            label, priority = IGNORED if is_partial(feature) else _CDS[feature.strand], 2
        elif kind in RNA_KINDS:
            label, priority = _RNA[feature.strand], 3
        else:
            continue
        claims.claim(bases_of(feature, len(codes)), label, priority)
    claims.labels[codes == N] = IGNORED
    return claims.labels


COARSE = Track(
    name="coarse",
    class_names=("intergenic", "CDS+", "CDS-", "RNA+", "RNA-"),
    opposite=(0, 2, 1, 4, 3),
    label=_label,
    needs="CDS rows in the GFF file",
)
