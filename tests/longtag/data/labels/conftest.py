"""Labels of small annotations written as rows."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from longtag.data.gff import read_gff
from longtag.data.labels import TRACKS

LabelRows = Callable[..., list[int]]


@pytest.fixture
def label_rows(tmp_path: Path) -> LabelRows:
    """A function from a track and rows 'type start end strand phase attributes' to the labels of one contig."""

    def label(track: str, *rows: str, length: int = 60, circular: bool = False, ns: Sequence[int] = ()) -> list[int]:
        lines = [f"chr\ts\tregion\t1\t{length}\t.\t+\t.\tID=chr" + (";Is_circular=true" if circular else "")]
        for row in rows:
            kind, start, stop, strand, phase, *attributes = row.split()
            lines.append("\t".join(["chr", "s", kind, start, stop, ".", strand, phase, ";".join(attributes)]))
        if not any(row.startswith("CDS") for row in rows):
            lines.append(f"chr\ts\tCDS\t{length}\t{length}\t.\t+\t0\tpseudo=true")
        path = tmp_path / "genome.gff3"
        path.write_text("\n".join(lines))
        codes = np.zeros(length, dtype=np.uint8)
        codes[list(ns)] = 4
        features = read_gff(path, {"chr": length}).features
        return TRACKS[track].label(features, codes, circular).tolist()

    return label
