"""One point file, or a part of one -> Scene.

Coordinates of surveys are millions of metres; float32 would lose decimetres. So they are shifted, in float64, by whole
metres to the centre of the cloud's bounding box in x and y and to its lowest point in z, and world_from_scene is that
shift: the world is the file's own coordinates, in metres. The name of the coordinate system is kept as the file gives
it; where that speaks of feet, the world is still in metres.

The scene's timestamp is that of the earliest point: nanoseconds of GPS time since 1980-01-06 where a LAS file says so;
times within an unnamed week have offsets but no timestamp.
"""

from __future__ import annotations

import numpy as np

from ingest.pointfiles.cloud import TAXONOMY, Cloud
from ingest.pointfiles.las import read_las
from ingest.pointfiles.pcd import read_pcd
from ingest.pointfiles.ply import read_ply
from ingest.pointfiles.tiles import Core, square, strip, to_scene
from ingest.pointfiles.views import read_views
from ingest.source import RawFiles, SceneRef
from shards.errors import SceneError
from shards.scene import Float32, Identity, Part, Points, Scene, View

MAX_COORDINATE = 1e8
"""Metres; more than any projected or geocentric coordinate."""
MAX_EXTENT = 1e5
"""Metres; float32 is still good to 4 mm there."""


def read(ref: SceneRef) -> Scene:
    """Read the file or tile of a reference made by `plan`.

    Returns a validated Scene with the points in file order, colour, intensity, normals ("file"), returns, times and
    label set "asprs" where the file has them, and views where a transforms.json lies beside it. Raises `RawDataError`
    for whatever cannot be read, also for a file without points or a tile without any in its core.
    """
    files = RawFiles(ref)
    try:
        scene = _read(files, ref.files["points"])
    finally:
        files.store.close()
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(ref.files["points"], str(problem)) from problem


def _read(files: RawFiles, path: str) -> Scene:
    ref, tile = files.ref, files.ref.details["tile"]
    cloud, core = _read_cloud(files, path)
    if not len(cloud.xyz) or (core is not None and not core.holds(cloud.xyz).any()):
        raise files.error(path, "has no points" + (" in this tile" if tile else ""))
    # By columns: numpy reduces the long axis of (N, 3) ten times slower.
    low, high = (np.array([pick(cloud.xyz[:, axis]) for axis in range(3)]) for pick in (np.min, np.max))
    if not (np.isfinite(cloud.xyz).all() and np.abs([low, high]).max() < MAX_COORDINATE):
        raise files.error(path, f"coordinates {low} .. {high} m are not on this planet", hint="a damaged header?")
    if (high - low).max() > MAX_EXTENT:
        raise files.error(path, f"the points span {(high - low).max():.0f} m", hint="set tile_m or metres_per_unit")
    origin = np.rint([*(low + high)[:2] / 2, low[2]])
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = origin
    views: tuple[View, ...] = ()
    dropped = dict(cloud.dropped)
    if "transforms" in ref.files:
        views, lost = read_views(
            files, path, cloud.xyz, origin=origin, metres_per_unit=cloud.metres_per_unit,
            max_views=ref.details["max_views"],
        )  # fmt: skip
        dropped |= lost
    part = None
    if core is not None:
        part = Part(whole=path, core_min=core.low - origin, core_max=core.high - origin)
    return Scene(
        identity=Identity(
            dataset=ref.dataset, version=ref.details["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=cloud.timestamp_ns, domain=ref.details["domain"],
            licence=ref.details["licence"], sources=files.sources(),
        ),
        world_from_scene=world_from_scene,
        world_crs=cloud.world_crs,
        part=part,
        points=_to_points(cloud, to_scene(cloud.xyz, origin, core)),
        views=views,
        dropped=dropped,
    )  # fmt: skip


def _read_cloud(files: RawFiles, path: str) -> tuple[Cloud, Core | None]:
    """The points, those of the tile if the reference is of one, and the tile's core."""
    details, tile = files.ref.details, files.ref.details["tile"]
    if details["format"] == "las":
        return read_las(files, path, details["metres_per_unit"], tile), None if tile is None else square(tile)
    readers = {"ply": read_ply, "pcd": read_pcd}
    cloud = readers[details["format"]](files, path, details["metres_per_unit"] or 1.0)
    if tile is None or not len(cloud.xyz):
        return cloud, None
    core = strip(tile, cloud.xyz)
    return cloud.take(core.near(cloud.xyz)), core


def _to_points(cloud: Cloud, xyz: Float32) -> Points:
    return Points(
        xyz=xyz,
        color=cloud.color,
        normal=cloud.normal,
        normal_source=None if cloud.normal is None else "file",
        intensity=cloud.intensity,
        intensity_unit=None if cloud.intensity is None else cloud.intensity_unit,
        ring=cloud.ring,
        time_offset=cloud.time_offset,
        return_number=cloud.return_number,
        return_count=cloud.return_count,
        semantic={} if cloud.classes is None else {TAXONOMY: cloud.classes},
    )
