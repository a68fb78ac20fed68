"""One ScanNet scan -> Scene: mesh vertices as points, their labels, and frames of the stream as views.

The scene frame is the frame of the mesh (z up, floor near zero). With `align_axes` the scan's `axisAlignment` A is
applied to points, normals and poses alike, and world_from_scene = inverse(A), so the world stays the files' own.
Every annotation file is optional (test scans have none); what is there must fit the mesh.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.scannet import annotation, mesh, sens
from ingest.source import RawFiles, SceneRef
from shards.errors import SceneError
from shards.scene import Float64, Identity, Points, Scene, View

MAX_TEXT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """What one read shares between its steps: the files, and the record of what was left out."""

    ref: SceneRef
    files: RawFiles
    dropped: Counter[str]

    def path(self, role: str) -> str | None:
        return self.ref.files.get(role)


def read(ref: SceneRef) -> Scene:
    """Read the scan of a reference made by `plan`.

    Returns a validated Scene: points with colour, "mesh-area-weighted" normals, instances and the label sets "nyu40",
    "scannet20" and "scannet200" as far as annotated; pinhole views with world-from-camera poses and depth.
    Raises `RawDataError` for damaged files and for files that do not belong together.
    """
    scan = _Scan(ref=ref, files=RawFiles(ref), dropped=Counter())
    try:
        alignment = _read_alignment(scan) if ref.details["align_axes"] else np.eye(4)
        points = _align_points(_read_points(scan), alignment)
        views = tuple(_read_views(scan, alignment))
    finally:
        scan.files.store.close()
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version="v2", split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
            timestamp_ns=None, domain="indoor", licence="LicenseRef-ScanNet-TOU", sources=scan.files.sources(),
        ),
        world_from_scene=np.linalg.inv(alignment),
        points=points,
        views=views,
        dropped=dict(scan.dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise scan.files.error(ref.files["mesh"], str(problem)) from problem


def _read_points(scan: _Scan) -> Points:
    surface = mesh.read_mesh(scan.files, scan.ref.files["mesh"])
    semantic, instance = _read_labels(scan, surface)
    return Points(
        xyz=surface.xyz,
        color=surface.color,
        normal=mesh.vertex_normals(surface.xyz, surface.faces),
        normal_source="mesh-area-weighted",
        semantic=semantic,
        instance=instance,
    )


def _read_labels(scan: _Scan, surface: mesh.Mesh) -> tuple[dict[str, NDArray[np.int16]], NDArray[np.int32] | None]:
    """Label sets and instances. nyu40 comes from `labels.ply`, else from the objects' categories."""
    segments, aggregation, table = (scan.path(role) for role in ("segments", "aggregation", "label_table"))
    semantic: dict[str, NDArray[np.int16]] = {}
    instance = scannet_id = nyu40_id = None
    if segments and aggregation:
        objects = annotation.read_objects(scan.files, segments, aggregation, len(surface.xyz))
        instance = objects.instance
        scan.dropped.update(objects.dropped)
        if table:
            categories = annotation.read_label_table(scan.files, table)
            scannet_id, nyu40_id, unknown = annotation.object_labels(objects, categories)
            scan.dropped.update(unknown)
        else:
            scan.dropped["object categories: the label table (.tsv) is missing"] += 1
    elif segments or aggregation:
        scan.dropped["objects: segs.json or aggregation.json is missing"] += 1
    if scan.path("labels"):
        nyu40_id = _read_labels_ply(scan, surface)
    if nyu40_id is not None:
        semantic = {name: annotation.map_labels(nyu40_id, name) for name in ("nyu40", "scannet20")}
    if scannet_id is not None:
        semantic["scannet200"] = annotation.map_labels(scannet_id, "scannet200")
    return semantic, instance


def _read_labels_ply(scan: _Scan, surface: mesh.Mesh) -> NDArray[np.int64]:
    """nyu40 ids (N,) of `labels.ply`, which must be the same mesh. A few scans hold ids beyond 40: unlabelled."""
    path = scan.ref.files["labels"]
    labelled = mesh.read_mesh(scan.files, path)
    if labelled.label is None:
        raise scan.files.error(path, "has no vertex property 'ushort label'")
    if len(labelled.xyz) != len(surface.xyz) or not np.allclose(labelled.xyz, surface.xyz, rtol=0, atol=1e-3):
        raise scan.files.error(
            path, f"its {len(labelled.xyz)} vertices are not the {len(surface.xyz)} vertices of the mesh",
            hint="take both from the same release",
        )  # fmt: skip
    unknown = int((labelled.label > 40).sum())
    if unknown:
        scan.dropped["nyu40 id beyond 40"] += unknown
    return labelled.label.astype(np.int64)


def _read_views(scan: _Scan, alignment: Float64) -> list[View]:
    """The chosen frames as views; candidates that cannot be used are counted in `scan.dropped`."""
    path, details = scan.path("sens"), scan.ref.details
    if path is None or details["max_frames"] == 0:
        return []
    header = sens.read_header(scan.files, path)
    candidates = sens.read_frames(scan.files, path, header)[:: details["frames_every"]]
    tracked = [frame for frame in candidates if np.isfinite(frame.pose).all()]
    usable = [frame for frame in tracked if frame.color_bytes]
    reasons = {"invalid pose": len(candidates) - len(tracked), "frame without image": len(tracked) - len(usable)}
    scan.dropped.update({reason: count for reason, count in reasons.items() if count})
    return [
        _read_view(scan, path, header, usable[i], alignment) for i in spread_evenly(len(usable), details["max_frames"])
    ]


def _read_view(scan: _Scan, path: str, header: sens.SensHeader, frame: sens.SensFrame, alignment: Float64) -> View:
    rotation = frame.pose[:3, :3]
    rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
    if not (rigid and np.allclose(frame.pose[3], (0, 0, 0, 1))):
        raise scan.files.error(path, f"frame {frame.number}: the pose is not a rigid transform", offset=frame.offset)
    return View(
        name=f"frame-{frame.number:06d}",
        image=sens.read_color(scan.files, path, header, frame),
        image_format=header.color_format,
        width=header.color_size[0],
        height=header.color_size[1],
        intrinsics=header.color_intrinsics,
        scene_from_camera=alignment @ frame.pose,
        depth=sens.read_depth(scan.files, path, header, frame) if scan.ref.details["read_depth"] else None,
    )


def spread_evenly(count: int, limit: int) -> list[int]:
    """At most `limit` indices of 0..count-1, evenly spread and rising; all of them if they are few enough."""
    if count <= limit:
        return list(range(count))
    return [(2 * i + 1) * count // (2 * limit) for i in range(limit)]


def _read_alignment(scan: _Scan) -> Float64:
    """`axisAlignment` of the scan's `.txt`; test scans have none and stay as they are, which is recorded."""
    path = scan.path("metadata")
    text = scan.files.read(path, MAX_TEXT).decode("utf-8", "replace") if path else ""
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.partition("=")
        if path and key.strip() == "axisAlignment":
            try:
                matrix = np.array([float(word) for word in value.split()]).reshape(4, 4)
            except ValueError as problem:
                raise scan.files.error(path, "axisAlignment must be 16 numbers", line=number) from problem
            rotation = matrix[:3, :3]
            if not (np.isfinite(matrix).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)):
                raise scan.files.error(path, "axisAlignment is not a rigid transform", line=number)
            return matrix
    scan.dropped["axis alignment: the scan has none"] += 1
    return np.eye(4)


def _align_points(points: Points, alignment: Float64) -> Points:
    if np.array_equal(alignment, np.eye(4)):
        return points
    rotation = alignment[:3, :3]
    normal = None if points.normal is None else (points.normal @ rotation.T).astype(np.float32)
    xyz = (points.xyz @ rotation.T + alignment[:3, 3]).astype(np.float32)
    return replace(points, xyz=xyz, normal=normal)
