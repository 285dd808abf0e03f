"""Labels of the reverse complement are the reversed labels with classes exchanged: no mismatch on any track."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from longtag.data import GenomeSource
from longtag.data.fasta import COMPLEMENT
from longtag.data.genome import SHIPPED
from longtag.data.gff import Feature, Part, read_gff
from longtag.data.labels import TRACKS
from longtag.data.source import IGNORED

OTHER_STRAND = {"+": "-", "-": "+", ".": "."}
OTHER_END = {"start_range": "end_range", "end_range": "start_range"}


def turned(feature: Feature, length: int) -> Feature:
    """The feature on the other strand, counted from the other end; a part may wrap round the origin."""
    parts = []
    for part in reversed(feature.parts):
        start, stop = length - part.stop, length - part.start
        parts.append(replace(part, start=start % length, stop=stop + (start % length - start)))
    attributes = {OTHER_END.get(key, key): value for key, value in feature.attributes.items()}
    return replace(feature, strand=OTHER_STRAND[feature.strand], parts=tuple(parts), attributes=attributes)


def mismatches(track: str, features: Sequence[Feature], codes: np.ndarray, circular: bool) -> int:
    labels = TRACKS[track].label(features, codes, circular)
    opposite = [turned(feature, len(codes)) for feature in features]
    other = TRACKS[track].label(opposite, COMPLEMENT[codes[::-1]], circular)
    return int((other != TRACKS[track].reverse_complement(labels)).sum())


@pytest.mark.parametrize("track", TRACKS)
def test_ecoli_has_no_mismatch(ecoli: GenomeSource, track: str):
    (contig,) = ecoli.contigs
    features = read_gff(SHIPPED / "ecoli_mg1655.gff3.gz", {contig.name: len(contig.codes)}).features
    assert mismatches(track, features, contig.codes, True) == 0


def random_features(rng: np.random.Generator, length: int) -> list[Feature]:
    """Features of few lengths and places, so that they overlap and tie; some wrap, have two parts or are partial."""
    features = []
    kinds = ["CDS"] * 6 + ["tRNA", "rRNA", "ncRNA", "pseudogene", "mobile_genetic_element", "repeat_region"]
    for _ in range(rng.integers(5, 25)):
        kind, start, size = str(rng.choice(kinds)), int(rng.integers(length)), int(rng.choice([2, 6, 9, 20, 30]))
        phase = int(rng.integers(3)) if kind == "CDS" else None
        parts: tuple[Part, ...] = (Part(start, start + size, phase),)
        if rng.random() < 0.3:
            second = (start + size + int(rng.integers(-1, 4))) % length
            parts = (*parts, Part(second, second + size, phase))
        attributes = {"Note": "REP1"}
        if rng.random() < 0.3:
            attributes["partial"] = "true"
            attributes[str(rng.choice(["start_range", "end_range", "other"]))] = "."
        features.append(Feature("chr", kind, str(rng.choice(["+", "-"])), parts, attributes, kind == "pseudogene"))
    for note in ("oriC", "dif"):
        start = int(rng.integers(length - 5))
        features.append(Feature("chr", "site", "+", (Part(start, start + int(rng.integers(1, 5))),), {"Note": note}))
    return features


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("track", TRACKS)
def test_random_annotations_have_no_mismatch(track: str, seed: int):
    rng = np.random.default_rng(seed)
    codes = rng.choice(5, 200, p=[0.24] * 4 + [0.04]).astype(np.uint8)
    assert mismatches(track, random_features(rng, 200), codes, True) == 0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("track", ["coarse", "fine"])
def test_the_order_of_the_features_does_not_matter(track: str, seed: int):
    rng = np.random.default_rng(seed)
    features, codes = random_features(rng, 200), rng.integers(0, 4, 200, dtype=np.uint8)
    shuffled = [features[i] for i in rng.permutation(len(features))]
    label = TRACKS[track].label
    assert np.array_equal(label(features, codes, True), label(shuffled, codes, True))


@pytest.mark.parametrize("track", TRACKS)
def test_exchanging_classes_twice_changes_nothing(track: str):
    labels = np.array([IGNORED, *range(len(TRACKS[track].class_names))], dtype=np.int8)
    other = TRACKS[track].reverse_complement(labels)
    assert other[-1] == IGNORED
    assert np.array_equal(TRACKS[track].reverse_complement(other), labels)
    assert len(TRACKS[track].class_names) == len(TRACKS[track].opposite)
