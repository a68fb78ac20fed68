"""One point file, or a part of one -> Scene.

Coordinates of surveys are millions of metres; float32 would lose decimetres. So they are shifted, in float64, by whole
metres to the centre of the cloud's bounding box in x and y and to its lowest point in z, and world_from_scene is that
shift: the world is the file's own coordinates, in metres. The name of the coordinate system is kept as the file gives
it; where that speaks of feet, the world is still in metres.

The scene's timestamp is that of the earliest point: nanoseconds of GPS time since 1980-01-06 where a LAS file says so;
times within an unnamed week have offsets but no timestamp.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from brickyard.ingest.pointfiles.cloud import OUTSIDE, Cloud, Scale
from brickyard.ingest.pointfiles.las import read_las
from brickyard.ingest.pointfiles.pcd import read_pcd
from brickyard.ingest.pointfiles.ply import read_ply
from brickyard.ingest.pointfiles.views import read_views
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.ingest.tiles import Core, square, strip, to_scene
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Float32, Float64, Identity, Part, Points, Scene, View

MAX_COORDINATE = 1e8
"""Metres; more than any projected or geocentric coordinate."""
MAX_EXTENT = 1e5
"""Metres; float32 is still good to 4 mm there."""


def read(ref: SceneRef) -> Scene:
    """Read the file or tile of a reference made by `plan`.

    Returns a validated Scene with the points in file order, colour, intensity, normals ("file"), returns, times and
    labels where the file has them, and views where a transforms.json lies beside it. A square without any points in its
    core gives a scene without points, which a build passes over. Raises `RawDataError` for whatever cannot be read,
    also for a file without points, or a strip without any.
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
    ref = files.ref
    cloud, core = _read_cloud(files, path)
    if core is None and not len(cloud.xyz):
        raise files.error(path, "has no points")
    if core is not None and not core.holds(cloud.xyz).any():
        if "strip" in ref.details["tile"]:
            raise files.error(path, "has no points in this tile: so many are at one place that other strips have all")
        nothing = cloud.take(np.zeros(len(cloud.xyz), np.bool_))
        return _scene(files, nothing, core, origin=np.zeros(3), dropped=cloud.dropped)
    # By columns: numpy reduces the long axis of (N, 3) ten times slower. What is not finite is among these, NaN too.
    low, high = (np.array([pick(cloud.xyz[:, axis]) for axis in range(3)]) for pick in (np.min, np.max))
    if not np.abs([low, high]).max() < MAX_COORDINATE:
        raise files.error(path, f"coordinates {low} .. {high} m are not on this planet", hint="a damaged header?")
    if (high - low).max() > MAX_EXTENT:
        raise files.error(path, f"the points span {(high - low).max():.0f} m", hint="set tile_m or metres_per_unit")
    origin = np.rint([*(low + high)[:2] / 2, low[2]])
    views: tuple[View, ...] = ()
    dropped = dict(cloud.dropped) | _outside(cloud, low, high)
    if "transforms" in ref.files:
        views, lost = read_views(
            files, path, cloud.xyz, origin=origin, scale=cloud.scale, max_views=ref.details["max_views"]
        )
        dropped |= lost
    return _scene(files, cloud, core, origin=origin, views=views, dropped=dropped)


def _scene(
    files: RawFiles, cloud: Cloud, core: Core | None, *, origin: Float64, views: tuple[View, ...] = (),
    dropped: Mapping[str, int],
) -> Scene:  # fmt: skip
    ref, path, part = files.ref, files.ref.files["points"], None
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = origin
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
        dropped=dict(dropped),
    )  # fmt: skip


def _outside(cloud: Cloud, low: Float64, high: Float64) -> dict[str, int]:
    """How many points, which lie between `low` and `high`, the header's bounds do not hold: it is stale, or they are
    damaged."""
    if cloud.bounds is None or ((low >= cloud.bounds[0]) & (high <= cloud.bounds[1])).all():
        return {}
    inside = np.ones(len(cloud.xyz), np.bool_)
    for axis in range(3):
        inside &= (cloud.xyz[:, axis] >= cloud.bounds[0, axis]) & (cloud.xyz[:, axis] <= cloud.bounds[1, axis])
    return {OUTSIDE: int((~inside).sum())}


def _read_cloud(files: RawFiles, path: str) -> tuple[Cloud, Core | None]:
    """The points, those of the tile if the reference is of one, and the tile's core."""
    details, tile = files.ref.details, files.ref.details["tile"]
    flat, height = details["metres_per_unit"], details["metres_per_height_unit"]
    if details["format"] == "las":
        return read_las(files, path, flat, height, tile), None if tile is None else square(tile)
    readers = {"ply": read_ply, "pcd": read_pcd}
    scale = Scale(flat=flat or 1.0, height=height or flat or 1.0)
    cloud = readers[details["format"]](files, path, scale, details["taxonomy"])
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
        semantic={} if cloud.classes is None else {cloud.taxonomy: cloud.classes},
    )
