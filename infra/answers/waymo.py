"""Waymo's pixels: which of a frame's range images measured something, so that points go back to where they were.

A corpus keeps the rows of points (rings) but not their columns. The frame is read again, TOP alone: its pixels, row by
row, the first return and then the second, are the first points of a scene that was built of all lasers with both
returns, and their rows must be the scene's rings. A scene from which a pixel was left out, or a laser, shows there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.infra.answers.raw import Raw, Read
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.waymo import v1, v2
from brickyard.ingest.waymo.frame import TOP, Options
from brickyard.shards.encode import SceneHeader
from brickyard.shards.errors import BrickyardError

Masks: TypeAlias = tuple[NDArray[np.bool_], ...]
_RELEASES = {v1.DATASET: v1, v2.DATASET: v2}


class WaymoRaw(Raw):
    """See the module's text; planned segment by segment. Of the last frame the masks are kept."""

    _planned: tuple[str, dict[str, SceneRef]] = ("", {})
    _last: tuple[str, Masks] = ("", ())

    def place(self, header: SceneHeader) -> Mapping[str, Any]:
        masks = self._measured(header)
        return {"raw_points": sum(int(mask.sum()) for mask in masks), "measured": masks}

    def mine(self, header: SceneHeader, read: Read) -> slice | NDArray[np.bool_]:
        masks = self._measured(header)
        rows = [np.nonzero(mask)[0] for mask in masks]
        count = sum(map(len, rows))
        number = np.repeat(np.arange(1, len(rows) + 1), [len(part) for part in rows])
        names = ("points/ring", "points/return_number")
        if not set(names) <= set(header.fields):
            raise BrickyardError(f"{header.identity.key} has no {' or '.join(names)}: build it with this version")
        for name, wanted in zip(names, (np.concatenate(rows), number), strict=True):
            if not np.array_equal(np.asarray(read(name))[:count], wanted):
                raise BrickyardError(
                    f"{header.identity.key}: its first {count} points are not all that the top laser measured; build"
                    " with all lasers (or TOP alone) and returns: 2"
                )
        return slice(0, count)

    def _measured(self, header: SceneHeader) -> Masks:
        """bool (H, W) of both returns of TOP."""
        identity = header.identity
        if self._last[0] == identity.key:
            return self._last[1]
        files = RawFiles(self._reference(header))
        frame = _RELEASES[identity.dataset].read_frame(files)
        if identity.timestamp_ns != frame.timestamp_us * 1000:
            raise BrickyardError(f"{identity.key} is at {identity.timestamp_ns} ns, the raw frame at another time")
        echoes = [echo for laser in frame.lasers if laser.number == TOP for echo in laser.echoes]
        if len(echoes) != 2:
            raise BrickyardError(f"{identity.key}: the raw frame has {len(echoes)} returns of TOP, expected two")
        self._last = (identity.key, tuple(echo.image[..., 0] > 0 for echo in echoes))
        return self._last[1]

    def _reference(self, header: SceneHeader) -> SceneRef:
        assert self.root is not None
        identity = header.identity
        segment = f"{identity.dataset}/{identity.sequence}"
        if self._planned[0] != segment:
            options = Options(lasers=("TOP",), cameras=(), returns=2, segments=(identity.sequence,))
            plan = _RELEASES[identity.dataset].plan(self.root, options)
            self._planned = (segment, {item.scene_id: item for item in plan if isinstance(item, SceneRef)})
        if identity.scene_id not in self._planned[1]:
            raise BrickyardError(f"{identity.key} is no frame of {self.root.uri}")
        return self._planned[1][identity.scene_id]
