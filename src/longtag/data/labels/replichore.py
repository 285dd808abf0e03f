"""Track `replichore`: is the strand that is read the leading strand of replication? 2 classes.

On a circular chromosome two forks run from oriC to dif, one each way. The strand that is read runs with the fork, and
is the leading one, from oriC up to dif; from dif up to oriC it runs against the other fork and is the lagging one. The
other strand is the opposite everywhere, so a reverse complement exchanges the classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longtag.data.fasta import N
from longtag.data.gff import Feature
from longtag.data.labels.track import Track
from longtag.data.source import IGNORED
from longtag.errors import UsageError

_LEADING, _LAGGING = 0, 1


def _label(features: Sequence[Feature], codes: NDArray[np.uint8], circular: bool) -> NDArray[np.int8]:
    """Forks meet and part in the middle of oriC and dif; where that is a base and not a gap, the base is ignored."""
    labels = np.full(len(codes), IGNORED, dtype=np.int8)
    origin, terminus = _doubled_middle(features, "oriC"), _doubled_middle(features, "dif")
    if origin is None or terminus is None or origin == terminus or not circular:
        return labels
    _fill_arc(labels, origin, terminus, _LEADING)
    _fill_arc(labels, terminus, origin, _LAGGING)
    labels[codes == N] = IGNORED
    return labels


def _doubled_middle(features: Sequence[Feature], note: str) -> int | None:
    """Twice the boundary that halves the feature with this note, an odd number when a base lies there."""
    found = [feature for feature in features if feature.attributes.get("Note", "").lower() == note.lower()]
    if len(found) > 1:
        raise UsageError(
            f"track=replichore: contig {found[0].contig} has {len(found)} features with Note={note}; keep one of them"
        )
    return found[0].parts[0].start + found[0].parts[-1].stop if found else None


def _fill_arc(labels: NDArray[np.int8], doubled_start: int, doubled_stop: int, label: int) -> None:
    length = len(labels)
    start, stop = -(-doubled_start // 2) % length, doubled_stop // 2 % length
    if start <= stop:
        labels[start:stop] = label
    else:
        labels[start:] = label
        labels[:stop] = label


REPLICHORE = Track(
    name="replichore",
    class_names=("leading", "lagging"),
    opposite=(1, 0),
    label=_label,
    needs=(
        "a circular contig (its region row has Is_circular=true) that has a row with Note=oriC and one with Note=dif; "
        "add those rows to the GFF file, or choose track=coarse or track=fine"
    ),
)
