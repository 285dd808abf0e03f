"""Label tracks of a genome: from features to one class for every base, one track a file."""

from longtag.data.labels.coarse import COARSE
from longtag.data.labels.fine import FINE
from longtag.data.labels.replichore import REPLICHORE
from longtag.data.labels.track import Track

TRACKS: dict[str, Track] = {track.name: track for track in (COARSE, FINE, REPLICHORE)}

__all__ = ["COARSE", "FINE", "REPLICHORE", "TRACKS", "Track"]
