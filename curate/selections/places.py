"""Which scenes a vehicle that stands still has made: near each other in place and time, in one sequence.

Scenes that stay are put into cells as wide as the limit, so each scene is compared with what stayed in 27 cells: time
and memory grow with the number of scenes, however long the vehicle stands.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
from numpy.typing import NDArray

from brickyard.curate.selections.leaders import Leaders
from brickyard.shards.scene import Float64

_AROUND = tuple(product((-1, 0, 1), repeat=3))
_FAR = 2.0**60


def standing(places: Float64, times: Float64, sequence: NDArray[np.int64], metres: float, seconds: float) -> Leaders:
    """Of scenes in the order of preference, who stays, and by how many metres the others are apart from it.

    Args:
        places: (N, 3), metres; NaN for unknown ones, which stay.
        times: (N,), seconds; NaN for unknown ones, which stay.
        metres, seconds: scenes that are no farther apart in both are the same.
    """
    kept, told = np.full(len(places), -1, np.int64), np.zeros(len(places), np.float32)
    cells = np.clip(np.floor(places / max(metres, 1e-3)), -_FAR, _FAR)
    stayed: defaultdict[tuple[float, ...], list[int]] = defaultdict(list)
    for k in np.flatnonzero(np.isfinite(places).all(axis=1) & np.isfinite(times)).tolist():
        number, (x, y, z) = int(sequence[k]), cells[k].tolist()
        around = (stayed.get((number, x + a, y + b, z + c), ()) for a, b, c in _AROUND)
        others = np.array(sorted(other for few in around for other in few), np.int64)
        apart = np.linalg.norm(places[others] - places[k], axis=1)
        same = np.flatnonzero((apart <= metres) & (np.abs(times[others] - times[k]) <= seconds))
        if len(same):
            kept[k], told[k] = others[same[0]], apart[same[0]]
        else:
            stayed[number, x, y, z].append(k)
    return kept, told
