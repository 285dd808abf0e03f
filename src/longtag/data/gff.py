"""Read GFF3 into features: rows checked against the contigs, rows of one ID grouped, pseudogenes marked.

Format: https://github.com/The-Sequence-Ontology/Specifications/blob/master/gff3.md
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from longtag.data.reading import open_input
from longtag.errors import UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """Bases [start, stop) of a contig, 0-based. On a circular contig `stop` may exceed the length: it wraps round.

    `phase` is how many bases come before the next codon begins, at the end where translation begins; None without one.
    """

    start: int
    stop: int
    phase: int | None = None


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: all rows that share an ID.

    `parts` ascend along the contig, round the origin where the feature crosses it. Attributes are percent-decoded.
    `pseudogene` is true where the feature or one of its ancestors is marked as a pseudogene.
    """

    contig: str
    type: str
    strand: str
    parts: tuple[Part, ...]
    attributes: Mapping[str, str]
    pseudogene: bool = False


@dataclass(frozen=True)
class Annotation:
    """Features of a GFF3 file in the order of their first rows, and the names of its circular contigs."""

    features: tuple[Feature, ...]
    circular: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    columns: tuple[str, ...]
    part: Part
    attributes: dict[str, str]
    parents: tuple[str, ...]

    @property
    def contig(self) -> str:
        return self.columns[0]

    @property
    def type(self) -> str:
        return self.columns[2]

    @property
    def strand(self) -> str:
        return self.columns[6]

    @property
    def identity(self) -> tuple[object, ...]:
        """Rows with equal identity are one feature. CDS rows without ID, as gffread writes them, go by their parent."""
        name = self.attributes.get("ID") or (self.type == "CDS" and self.parents) or self.number
        return self.contig, self.type, self.strand, name, self.parents

    @property
    def marks_pseudogene(self) -> bool:
        attributes = self.attributes
        return self.type.startswith("pseudogen") or attributes.get("pseudo") == "true" or "pseudogene" in attributes


def read_gff(path: str | Path, contig_lengths: Mapping[str, int], option: str = "gff") -> Annotation:
    """Features of a GFF3 file, plain or gzip; `contig_lengths` comes from the FASTA file that it annotates.

    Contigs are circular where a row says `Is_circular=true`; features on them may end past the contig's length.

    Raises UsageError, which names `option`, for a file that is missing, empty or truncated, for rows that cannot be
    right (with line number and row) and for a file without any CDS.
    """
    rows = _read_rows(path, option)
    circular = frozenset(row.contig for row in rows if row.attributes.get("Is_circular") == "true")
    for row in rows:
        if fault := _misplaced(row, contig_lengths, circular):
            raise _row_error(path, option, row.number, "\t".join(row.columns), fault)
    if not any(row.type == "CDS" for row in rows):
        raise UsageError(f"{option}={path}: no CDS among {len(rows)} rows; give an annotation with rows of type CDS")
    pseudogenes = _pseudogene_ids(rows)

    groups: dict[tuple[object, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        groups[row.identity].append(row)
    features = (
        _feature(group, contig_lengths[group[0].contig], group[0].contig in circular, pseudogenes)
        for group in groups.values()
    )
    return Annotation(tuple(features), circular)


def _read_rows(path: str | Path, option: str) -> list[_Row]:
    rows = []
    with open_input(path, option) as lines:
        for number, line in enumerate(lines, 1):
            text = line.decode(errors="replace").rstrip("\r\n")
            if text.startswith(("##FASTA", ">")):
                break
            if not text.strip() or text.startswith("#"):
                continue
            try:
                rows.append(_parse_row(number, text))
            except ValueError as error:
                raise _row_error(path, option, number, text, str(error)) from error
    if not rows:
        raise UsageError(f"{option}={path}: the file is empty: no feature row in it; give an annotation with CDS rows")
    return rows


def _parse_row(number: int, text: str) -> _Row:
    columns = tuple(text.split("\t"))
    if len(columns) != 9:
        raise ValueError(f"expected 9 columns parted by tabs, found {len(columns)}")
    contig, _, kind, start_text, stop_text, _, strand, phase_text, attributes_text = columns
    if not (start_text.isdecimal() and stop_text.isdecimal()):
        raise ValueError(f"start {start_text!r} and end {stop_text!r} must be whole numbers, counted from 1")
    start, stop = int(start_text), int(stop_text)
    if start < 1:
        raise ValueError("start 0: GFF3 counts bases from 1")
    if stop < start:
        raise ValueError(f"end {stop} lies before start {start}; the smaller goes first on either strand")
    if strand not in ("+", "-", ".", "?") or (kind == "CDS" and strand not in ("+", "-")):
        raise ValueError(f"strand {strand!r} of a {kind} row must be + or -" + (", . or ?" if kind != "CDS" else ""))
    if phase_text not in ("0", "1", "2", ".") or (kind == "CDS" and phase_text == "."):
        raise ValueError(f"phase {phase_text!r} of a {kind} row must be 0, 1 or 2" + (" or ." if kind != "CDS" else ""))

    attributes, parents = {}, ()
    for item in attributes_text.split(";"):
        key, _, value = item.strip().partition("=")
        if key == "Parent":
            parents = tuple(unquote(parent) for parent in value.split(","))
        attributes[unquote(key)] = unquote(value)
    part = Part(start - 1, stop, None if phase_text == "." else int(phase_text))
    return _Row(number, (unquote(contig), *columns[1:]), part, attributes, parents)


def _misplaced(row: _Row, contig_lengths: Mapping[str, int], circular: frozenset[str]) -> str | None:
    """Why the row cannot lie where it says, or None."""
    if row.contig not in contig_lengths:
        known = ", ".join(list(contig_lengths)[:5]) + (", ..." if len(contig_lengths) > 5 else "")
        return f"contig {row.contig!r} is not in the FASTA file, which has {known}; both files must use the same names"
    length, part = contig_lengths[row.contig], row.part
    if row.contig in circular and part.start < length and part.stop - part.start <= length:
        return None
    if part.stop > length:
        return (
            f"end {part.stop} lies outside contig {row.contig} of {length} bases; is it the FASTA file that this GFF "
            "annotates? (a feature may cross the origin only where the region row has Is_circular=true)"
        )
    return None


def _pseudogene_ids(rows: list[_Row]) -> frozenset[str]:
    """IDs that are pseudogenes by their own mark or by that of any ancestor."""
    parents: dict[str, set[str]] = defaultdict(set)
    marked: set[str] = set()
    for row in rows:
        if name := row.attributes.get("ID"):
            parents[name].update(row.parents)
            if row.marks_pseudogene:
                marked.add(name)
    children: dict[str, set[str]] = defaultdict(set)
    for name, ancestors in parents.items():
        for ancestor in ancestors:
            children[ancestor].add(name)
    waiting = list(marked)
    while waiting:
        fresh = children[waiting.pop()] - marked
        marked |= fresh
        waiting.extend(fresh)
    return frozenset(marked)


def _feature(rows: list[_Row], contig_length: int, circular: bool, pseudogenes: frozenset[str]) -> Feature:
    first = rows[0]
    parts = sorted((row.part for row in rows), key=lambda part: (part.start, part.stop))
    attributes = {key: value for row in reversed(rows) for key, value in row.attributes.items()}
    own_or_inherited = not pseudogenes.isdisjoint((first.attributes.get("ID", ""), *first.parents))
    return Feature(
        contig=first.contig,
        type=first.type,
        strand=first.strand,
        parts=tuple(_from_widest_gap(parts, contig_length) if circular else parts),
        attributes=attributes,
        pseudogene=own_or_inherited or any(row.marks_pseudogene for row in rows),
    )


def _from_widest_gap(parts: list[Part], contig_length: int) -> list[Part]:
    """Parts of a feature on a circle begin after the widest gap: a feature cut in two at the origin stays in order."""
    gaps = [parts[0].start + contig_length - parts[-1].stop]
    gaps += [after.start - before.stop for before, after in pairwise(parts)]
    first = gaps.index(max(gaps))
    return parts[first:] + parts[:first]


def _row_error(path: str | Path, option: str, number: int, row: str, fault: str) -> UsageError:
    shown = row if len(row) <= 160 else row[:157] + "..."
    return UsageError(f"{option}={path}, line {number}: {fault}\n  row: {shown}")
