"""What a feature is for the tracks, and which bases it covers."""

from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from longtag.data.gff import Feature
from longtag.errors import UsageError


class Kind(Enum):
    """What a feature counts as; OTHER gives no labels."""

    CDS = auto()
    TRNA = auto()
    RRNA = auto()
    NCRNA = auto()
    PSEUDOGENE = auto()
    MOBILE_ELEMENT = auto()
    REP = auto()
    OTHER = auto()


RNA_KINDS = (Kind.TRNA, Kind.RRNA, Kind.NCRNA)


def kind_of(feature: Feature) -> Kind:
    """The kind of a feature. A gene row counts only as a pseudogene: what a gene makes is told by its children.

    Raises UsageError for an RNA gene without a strand.
    """
    if feature.pseudogene:
        return Kind.PSEUDOGENE
    if feature.type == "CDS":
        return Kind.CDS
    if feature.type.endswith("RNA") and feature.type != "mRNA":
        if feature.strand not in ("+", "-"):
            place = f"{feature.contig}:{feature.parts[0].start + 1}-{feature.parts[-1].stop}"
            raise UsageError(f"gff: {feature.type} at {place} has strand {feature.strand!r}; RNA genes need + or -")
        return {"tRNA": Kind.TRNA, "rRNA": Kind.RRNA}.get(feature.type, Kind.NCRNA)
    if feature.type == "mobile_genetic_element":
        return Kind.MOBILE_ELEMENT
    if feature.type == "repeat_region" and feature.attributes.get("Note", "").startswith("REP"):
        return Kind.REP
    return Kind.OTHER


def bases_of(feature: Feature, contig_length: int) -> NDArray[np.int64]:
    """Positions (size,) of a feature's bases in the order of transcription, its parts spliced.

    A base that two overlapping parts share, as in a programmed frameshift, is listed twice.
    """
    bases = np.concatenate([np.arange(part.start, part.stop) for part in feature.parts]) % contig_length
    return bases[::-1] if feature.strand == "-" else bases


def is_partial(feature: Feature) -> bool:
    """Whether the annotation says that the feature goes on past what the contig shows."""
    return feature.attributes.get("partial") == "true"
