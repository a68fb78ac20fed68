"""One point file, or a tile of one -> Scene.

Coordinates of surveys are millions of metres; float32 would lose decimetres. So they are shifted, in float64, by whole
metres to the centre of the cloud's bounding box in x and y and to its lowest point in z, and world_from_scene is that
shift: the world is the file's own coordinates, in metres. The coordinate system's name has no place in the contract and
is not kept, nor are poses of sensors known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ingest.pointfiles.cloud import TAXONOMY, Cloud
from ingest.pointfiles.las import read_las
from ingest.pointfiles.pcd import read_pcd
from ingest.pointfiles.ply import read_ply
from ingest.source import RawFiles, SceneRef
from shards.errors import SceneError
from shards.scene import Identity, Points, Scene

MAX_COORDINATE = 1e8
"""Metres; more than any projected or geocentric coordinate."""
MAX_EXTENT = 1e5
"""Metres; float32 is still good to 4 mm there."""


def read(ref: SceneRef) -> Scene:
    """Read the file or tile of a reference made by `plan`.

    Returns a validated Scene with the points in file order, and colour, intensity, normals ("file") and label set
    "asprs" where the file has them. Raises `RawDataError` for whatever cannot be read, also for a file or tile without
    points.
    """
    files = RawFiles(ref)
    path = ref.files["points"]
    try:
        cloud = _read_cloud(files, path)
    finally:
        files.store.close()
    if not len(cloud.xyz):
        raise files.error(path, "has no points" + (" in this tile" if ref.details["tile"] else ""))
    low, high = cloud.xyz.min(axis=0), cloud.xyz.max(axis=0)
    if not (np.isfinite(cloud.xyz).all() and np.abs([low, high]).max() < MAX_COORDINATE):
        raise files.error(path, f"coordinates {low} .. {high} m are not on this planet", hint="a damaged header?")
    if (high - low).max() > MAX_EXTENT:
        raise files.error(path, f"the points span {(high - low).max():.0f} m", hint="set tile_m or metres_per_unit")
    origin = np.rint([*(low + high)[:2] / 2, low[2]])
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = origin
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=None, domain=ref.details["domain"], licence=ref.details["licence"],
            sources=files.sources(),
        ),
        world_from_scene=world_from_scene,
        points=_to_points(replace(cloud, xyz=cloud.xyz - origin)),
        dropped=dict(cloud.dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(path, str(problem)) from problem


def _read_cloud(files: RawFiles, path: str) -> Cloud:
    details = files.ref.details
    if details["format"] == "las":
        return read_las(files, path, details["metres_per_unit"], details["tile"])
    readers = {"ply": read_ply, "pcd": read_pcd}
    return readers[details["format"]](files, path, details["metres_per_unit"] or 1.0)


def _to_points(cloud: Cloud) -> Points:
    return Points(
        xyz=cloud.xyz.astype(np.float32),
        color=cloud.color,
        normal=cloud.normal,
        normal_source=None if cloud.normal is None else "file",
        intensity=cloud.intensity,
        intensity_unit=None if cloud.intensity is None else cloud.intensity_unit,
        semantic={} if cloud.classes is None else {TAXONOMY: cloud.classes},
    )
