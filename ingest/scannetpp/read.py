"""One ScanNet++ scene, a chunk or a clip of one -> Scene: mesh vertices, labels, photographs and frames of the phone.

The scene frame is that of the mesh, which is the dataset's world: metres, z up, near the origin. All chunks of a scene
share it. Points are the vertices in the order of the file; they are denser where the surface is bent, and the dataset's
authors sample the surface instead.
"""

from __future__ import annotations

import numpy as np

from brickyard.ingest.mesh import read_mesh, vertex_normals
from brickyard.ingest.scan import Scan, open_scan
from brickyard.ingest.scannetpp.annotation import MANY, Labels, read_labels
from brickyard.ingest.scannetpp.chunks import core_of
from brickyard.ingest.scannetpp.phone import phone_clip, phone_views
from brickyard.ingest.scannetpp.photographs import photograph_clip, photograph_views
from brickyard.ingest.source import SceneRef
from brickyard.ingest.tiles import Core
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Float32, Identity, Part, Points, Scene, View

LICENCE = "LicenseRef-ScanNetPP"
MAX_COORDINATE_M = 1000.0
UNLABELLED_HALF = "objects: segments.json or segments_anno.json is missing"
STRETCHED = "square of a chunk beside its own, which the plan did not foresee"


def read(ref: SceneRef) -> Scene:
    """Read the scene, chunk or clip of a reference made by `plan`.

    Returns a validated Scene: xyz, colour, "mesh-area-weighted" normals, label sets "scannetpp100" and "scannetpp84"
    and instances where it is annotated, and the views that were asked for: fisheye or undistorted photographs, then
    frames of the phone with time and depth. A chunk that the scene is too small for has neither points nor views, which
    a build passes over. A clip has views in their order and no points. Raises `RawDataError` for damaged files and for
    files that do not belong together.
    """
    scan = open_scan(ref)
    scan.dropped.update(f"file not there: {path}" for path in ref.details["absent"])
    points: Points | None = None
    core: Core | None = None
    try:
        if ref.details["clips"] is None:
            points, core, views = _read(scan)
        else:
            views = _read_clip(scan)
    finally:
        scan.files.store.close()
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=ref.details["release"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=views[0].timestamp_ns if points is None else None, domain="indoor",
            licence=LICENCE, sources=scan.files.sources(),
        ),
        world_from_scene=np.eye(4),
        part=None if core is None else Part(whole=ref.sequence, core_min=core.low, core_max=core.high),
        points=points,
        views=tuple(views),
        dropped=dict(scan.dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise scan.files.error(ref.details["folder"], str(problem)) from problem


def _read_clip(scan: Scan) -> list[View]:
    views = phone_clip(scan) if scan.ref.details["clips_of"] == "iphone" else photograph_clip(scan)
    if len(views) < 2:
        reasons = ", ".join(f"{count} {what}" for what, count in scan.dropped.items())
        what = f"{len(views)} views of the clip can be used ({reasons}), it needs two"
        raise scan.files.error(f"{scan.ref.details['folder']}/{scan.ref.details['clips_of']}", what)
    return views


def _read(scan: Scan) -> tuple[Points, Core | None, list[View]]:
    path, chunk = scan.ref.files["mesh"], scan.ref.details["chunk"]
    surface = read_mesh(scan.files, path)
    if not len(surface.xyz) or surface.color is None:
        what = "has no vertices" if not len(surface.xyz) else "has no uchar red, green, blue of its vertices"
        raise scan.files.error(path, what, hint="download it again")
    if (far := float(np.abs(surface.xyz).max())) > MAX_COORDINATE_M:
        raise scan.files.error(path, f"a vertex lies {far:.0f} m from the origin", hint="download it again")
    core = None
    mine = np.ones(len(surface.xyz), np.bool_)
    if chunk is not None:
        core, more = core_of(surface.xyz, chunk)
        place = surface.xyz.astype(np.float64)
        mine = core.near(place)
        if not core.holds(place[mine]).any():
            return _nothing(), core, []
        if more:
            scan.dropped[STRETCHED] += more
    normal = vertex_normals(surface.xyz, surface.faces)
    labels = _read_labels(scan, surface.xyz)
    if labels is not None and (several := int(labels.several[mine].sum())):
        scan.dropped[MANY] += several
    points = Points(
        xyz=surface.xyz[mine],
        color=surface.color[mine],
        normal=normal[mine],
        normal_source="mesh-area-weighted",
        semantic={} if labels is None else {name: values[mine] for name, values in labels.semantic.items()},
        instance=None if labels is None else labels.instance[mine],
    )
    views = photograph_views(scan, surface.xyz, core) + phone_views(scan, surface.xyz, core)
    return points, core, views


def _nothing() -> Points:
    return Points(xyz=np.empty((0, 3), np.float32))


def _read_labels(scan: Scan, xyz: Float32) -> Labels | None:
    if scan.path("segments") and scan.path("annotation"):
        return read_labels(scan.files, xyz, scan.dropped)
    if scan.path("segments") or scan.path("annotation"):
        scan.dropped[UNLABELLED_HALF] += 1
    return None
