"""One ScanNet scan -> Scene: mesh vertices as points, their labels, and frames of the stream as views.

The scene frame is the frame of the mesh (z up, floor near zero). With `align_axes` the scan's `axisAlignment` A is
applied to points, normals and poses alike, and world_from_scene = inverse(A), so the world stays the files' own.
Every annotation file is optional (test scans have none); what is there must fit the mesh. A clip is frames of the
stream and nothing else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest import mesh
from brickyard.ingest.scan import Scan, open_scan
from brickyard.ingest.scannet import annotation, views
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Float32, Float64, Identity, Points, Scene, View

MAX_TEXT = 1 << 20


def read(ref: SceneRef) -> Scene:
    """Read the scan or clip of a reference made by `plan`.

    Returns a validated Scene. A scan has points with colour, "mesh-area-weighted" normals, instances and the label
    sets "nyu40", "scannet20" and "scannet200" as far as annotated, and pinhole views with poses, depth, and label
    images in the same sets. A clip has no points, and views in the stream's order; a view whose pose the tracker lost
    has None for it.
    Raises `RawDataError` for damaged files and for files that do not belong together.
    """
    scan = open_scan(ref)
    points: Points | None = None
    seen: list[View]
    try:
        alignment = _read_alignment(scan) if ref.details["align_axes"] else np.eye(4)
        if ref.details["clips"] is not None:
            seen = views.clip_views(scan, alignment)
        else:
            scan.dropped.update(f"file not there: {suffix}" for suffix in ref.details["absent"])
            categories = _read_categories(scan)
            points, objects = _read_points(scan, categories)
            points = _align_points(points, alignment)
            seen = views.scan_views(scan, alignment, points, objects, categories)
    finally:
        scan.files.store.close()
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version="v2", split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
            timestamp_ns=seen[0].timestamp_ns if points is None else None, domain="indoor",
            licence="LicenseRef-ScanNet-TOU", sources=scan.files.sources(),
        ),
        world_from_scene=np.linalg.inv(alignment),
        points=points,
        views=tuple(seen),
        dropped=dict(scan.dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise scan.files.error(ref.files.get("mesh", ref.files.get("sens", "")), str(problem)) from problem


def _read_categories(scan: Scan) -> annotation.LabelTable | None:
    """The label table, if there is one and something that needs it."""
    table = scan.path("label_table")
    wanted = scan.path("aggregation") or scan.path("label_images") or scan.ref.details.get("image_folders")
    return annotation.read_label_table(scan.files, table, scan.dropped) if table and wanted else None


def _read_points(scan: Scan, categories: annotation.LabelTable | None) -> tuple[Points, annotation.Objects | None]:
    surface = mesh.read_mesh(scan.files, scan.ref.files["mesh"])
    objects = _read_objects(scan, len(surface.xyz))
    points = Points(
        xyz=surface.xyz,
        color=surface.color,
        normal=mesh.vertex_normals(surface.xyz, surface.faces),
        normal_source="mesh-area-weighted",
        semantic=_semantic(scan, surface, objects, categories),
        instance=None if objects is None else objects.instance,
    )
    return points, objects


def _read_objects(scan: Scan, vertices: int) -> annotation.Objects | None:
    segments, aggregation = scan.path("segments"), scan.path("aggregation")
    if segments and aggregation:
        objects = annotation.read_objects(scan.files, segments, aggregation, vertices)
        scan.dropped.update(objects.dropped)
        return objects
    if segments or aggregation:
        scan.dropped["objects: segs.json or aggregation.json is missing"] += 1
    return None


def _semantic(
    scan: Scan, surface: mesh.Mesh, objects: annotation.Objects | None, categories: annotation.LabelTable | None
) -> dict[str, NDArray[np.int16]]:
    """Label sets of the vertices. nyu40 comes from `labels.ply`, else from the objects' categories."""
    scannet_id = nyu40_id = None
    if objects is not None and categories is not None:
        scannet_id, nyu40_id, unknown = annotation.object_labels(objects, categories)
        scan.dropped.update(unknown)
    elif objects is not None:
        scan.dropped["object categories: the label table (.tsv) is missing"] += 1
    if scan.path("labels"):
        from_mesh = _read_labels_ply(scan, surface)
        if nyu40_id is not None:
            path = scan.ref.files["aggregation"]
            differ = annotation.check_agreement(scan.files, path, nyu40_id, from_mesh)
            scan.dropped.update({"nyu40 of the object: labels.ply has another": differ} if differ else {})
        nyu40_id = from_mesh
    semantic: dict[str, NDArray[np.int16]] = {}
    if nyu40_id is not None:
        semantic = {name: annotation.map_labels(nyu40_id, name) for name in ("nyu40", "scannet20")}
    if scannet_id is not None:
        semantic["scannet200"] = annotation.map_labels(scannet_id, "scannet200")
    return semantic


def _read_labels_ply(scan: Scan, surface: mesh.Mesh) -> NDArray[np.int64]:
    """nyu40 ids (N,) of `labels.ply`, which must be the same mesh. A few scans hold ids beyond 40: unlabelled."""
    path = scan.ref.files["labels"]
    labelled = mesh.read_mesh(scan.files, path)
    if labelled.label is None:
        raise scan.files.error(path, "has no vertex property 'ushort label'")
    difference = _difference(labelled.xyz, surface.xyz)
    if difference is not None:
        raise scan.files.error(path, f"is not of this mesh: {difference}", hint="take both from the same release")
    unknown = int((labelled.label > 40).sum())
    if unknown:
        scan.dropped["nyu40 id beyond 40"] += unknown
    return labelled.label.astype(np.int64)


def _difference(labelled: Float32, surface: Float32) -> str | None:
    """How the vertices of two meshes differ, in words; None if they do not (within a millimetre)."""
    if len(labelled) != len(surface):
        return f"it has {len(labelled)} vertices, the mesh has {len(surface)}"
    far = (np.abs(labelled - surface) > 1e-3).any(axis=1)
    if not far.any():
        return None
    first = int(far.argmax())
    (mine, other) = (" ".join(f"{value:.3f}" for value in xyz[first]) for xyz in (labelled, surface))
    ordered = [xyz[np.lexsort(xyz.T)] for xyz in (labelled, surface)]
    what = "stand in another order" if np.abs(ordered[0] - ordered[1]).max() <= 1e-3 else "lie elsewhere"
    return f"{int(far.sum())} of {len(surface)} vertices {what}, the first is {first}: here {mine}, in the mesh {other}"


def _read_alignment(scan: Scan) -> Float64:
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
            rigid = np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
            if not (np.isfinite(matrix).all() and rigid and np.allclose(matrix[3], (0, 0, 0, 1))):
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
