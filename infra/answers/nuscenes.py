"""nuScenes' names of sweeps: the token of each keyframe's LIDAR_TOP row in sample_data.json, and its file.

A corpus knows a keyframe by the token of its sample. The tables are read once, a row at a time; of trainval that is
more than a gigabyte of text and takes some ten seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.infra.answers.raw import Raw, Read, points_of
from brickyard.ingest.nuscenes.plan import LIDAR
from brickyard.ingest.nuscenes.sweeps import POINT_BYTES
from brickyard.ingest.nuscenes.tables import Row, scan
from brickyard.shards.encode import SceneHeader
from brickyard.shards.errors import BrickyardError
from brickyard.shards.storage import Store

_SWEEP = "points/sweep"


class NuScenesRaw(Raw):
    """See the module's text."""

    def __init__(self, root: Store | None) -> None:
        super().__init__(root)
        self._rows: dict[str, dict[str, tuple[str, str]]] = {}

    def set_name(self, split: str, version: str) -> str:
        return f"mini_{split}" if self._release(version).endswith("-mini") else split

    def place(self, header: SceneHeader) -> Mapping[str, Any]:
        release, sample = self._release(header.identity.version), header.identity.scene_id.rpartition("/")[2]
        if release not in self._rows:
            assert self.root is not None
            self._rows[release] = lidar_rows(self.root, release)
        if sample not in self._rows[release]:
            raise BrickyardError(f"{header.identity.key}: {release}/sample_data.json has no {LIDAR} keyframe of it")
        token, path = self._rows[release][sample]
        return {"raw_points": points_of(header, path, self.size(header, path), POINT_BYTES), "token": token}

    def mine(self, header: SceneHeader, read: Read) -> slice | NDArray[np.bool_]:
        """Without the points of earlier sweeps."""
        if _SWEEP not in header.fields:
            return slice(None)
        keyframe: NDArray[np.bool_] = np.asarray(read(_SWEEP)) == 0
        return keyframe

    def _release(self, version: str) -> str:
        """Folder of the tables: that of the release, or the only one there is (of a simulated world)."""
        assert self.root is not None
        found = [name.rstrip("/") for name in self.root.list() if name.startswith("v1.") and name.endswith("/")]
        if version in found or len(found) == 1:
            return version if version in found else found[0]
        raise BrickyardError(f"{self.root.uri} has no tables of {version!r}; found {', '.join(found) or 'none'}")


def lidar_rows(root: Store, release: str) -> dict[str, tuple[str, str]]:
    """Token of a sample -> (token, file) of its lidar keyframe; raises `RawDataError` for damaged tables."""
    sensors: set[str] = set()
    mounts: set[str] = set()
    rows: dict[str, tuple[str, str]] = {}

    def sensor(row: Row) -> None:
        if row["channel"] == LIDAR:
            sensors.add(row["token"])

    def mount(row: Row) -> None:
        if row["sensor_token"] in sensors:
            mounts.add(row["token"])

    def keyframe(row: Row) -> None:
        if row["is_key_frame"] and row["calibrated_sensor_token"] in mounts:
            rows[row["sample_token"]] = str(row["token"]), str(row["filename"])

    for table, take in (("sensor", sensor), ("calibrated_sensor", mount), ("sample_data", keyframe)):
        scan(root, f"{release}/{table}.json", take)
    return rows
