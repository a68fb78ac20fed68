"""Reads one capture, or a clip of its frames, into a Scene.

The scene's frame is the mesh's: metres, z up, origin where the capture began.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.arkitscenes.boxes import Box, annotation, inside, read_boxes
from brickyard.ingest.arkitscenes.files import REPORT, CaptureFiles
from brickyard.ingest.arkitscenes.frames import capture_views, clip_views
from brickyard.ingest.arkitscenes.table import DATASET
from brickyard.ingest.mesh import parse_header, read_mesh, vertex_normals
from brickyard.ingest.source import SceneRef
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Identity, Points, Scene, View

LICENCE = "LicenseRef-Apple-ARKitScenes"
VERSION = "2021"
MAX_COORDINATE_M = 500.0
MIN_UP, UP, FLOOR_M = 0.01, 0.8, 0.5
"""Share of the vertices that face up, the least z of their normals, metres between the lowest of them and of all."""
CAMERA_ABOVE_FLOOR_M = (0.1, 3.5)
NO_ANNOTATION = "labels: the annotation is not there"
NO_FLOOR = "mesh without a floor at its bottom: perhaps z is not up"
NOT_ABOVE = "cameras that are not 0.1 to 3.5 m above the floor of the mesh: perhaps another capture's"


def read(ref: SceneRef) -> Scene:
    """The Scene of a reference made by `plan`; raises `RawDataError` for whatever is wrong with its files."""
    files, dropped = CaptureFiles(ref), Counter[str]()
    if ref.details["clips"] is None:
        boxes = _boxes(files, dropped)
        points = _points(files, boxes, dropped)
        views = capture_views(files, points.xyz, dropped)
        _check_up(points, views, dropped)
    else:
        points, boxes, views = None, None, clip_views(files, dropped)
    scene = Scene(
        identity=Identity(
            dataset=DATASET, version=f"{VERSION} ({ref.details['subset']})", split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=views[0].timestamp_ns if views else None, domain="indoor",
            licence=LICENCE, sources=files.sources(),
        ),
        world_from_scene=np.eye(4),
        points=points,
        views=tuple(views),
        annotations={"boxes": annotation(boxes)} if boxes else {},
        dropped=dict(dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(files.folder, str(problem)) from problem


def _boxes(files: CaptureFiles, dropped: Counter[str]) -> list[Box] | None:
    """None where there are none, or nobody asked for them."""
    if not files.ref.details["boxes"]:
        return None
    if not files.has(files.annotation):
        dropped[NO_ANNOTATION] += 1
        return None
    return read_boxes(files, files.annotation, dropped)


def _points(files: CaptureFiles, boxes: list[Box] | None, dropped: Counter[str]) -> Points:
    if not files.has(files.mesh):
        raise files.error(files.mesh, "it is not there, without which there are no points", hint="download it again")
    surface = read_mesh(files, files.mesh)
    color = _float_color(files) if surface.color is None and len(surface.xyz) else surface.color
    if color is None:
        what = (
            "has no vertices" if not len(surface.xyz) else "has no red, green, blue of its vertices, as bytes or floats"
        )
        raise files.error(files.mesh, what, hint=REPORT)
    if (far := float(np.abs(surface.xyz).max())) > MAX_COORDINATE_M:
        raise files.error(files.mesh, f"a vertex lies {far:.0f} m from the origin", hint=REPORT)
    labels = None if boxes is None else inside(boxes, surface.xyz, dropped)
    return Points(
        xyz=surface.xyz,
        color=color,
        normal=vertex_normals(surface.xyz, surface.faces),
        normal_source="mesh-area-weighted",
        semantic={} if labels is None else {"arkitscenes17": labels.semantic},
        instance=None if labels is None else labels.instance,
    )


def _float_color(files: CaptureFiles) -> NDArray[np.uint8] | None:
    """Colours that are floats of 0..1 or 0..255, uint8 (N, 3); None where they are neither."""
    data = files.read(files.mesh)
    record, count, _, start = parse_header(files, files.mesh, data)
    names = ("red", "green", "blue")
    if not set(names) <= set(record.names or ()) or any(record[name].kind != "f" for name in names):
        return None
    table = np.frombuffer(data, record, count, start)
    values = np.stack([table[name] for name in names], axis=1).astype(np.float64)
    if not (values.min() >= 0 and values.max() <= 255):
        return None
    color: NDArray[np.uint8] = np.rint(values * (255 if values.max() <= 1 else 1)).astype(np.uint8)
    return color


def _check_up(points: Points, views: list[View], dropped: Counter[str]) -> None:
    """Count a mesh without a floor at its bottom, and cameras that are not above it.

    A closed room that stands on its head or lies on a side has a floor, too: cameras and depth tell that one.
    """
    assert points.normal is not None
    height, up = points.xyz[:, 2], points.normal[:, 2] > UP
    floor = float(np.percentile(height[up], 2)) if up.sum() >= MIN_UP * len(up) else np.inf
    if floor - float(np.percentile(height, 1)) > FLOOR_M:
        dropped[NO_FLOOR] += 1
        return
    centres = np.array([view.scene_from_camera[2, 3] for view in views if view.scene_from_camera is not None])
    low, high = CAMERA_ABOVE_FLOOR_M
    if len(centres) and not low <= float(np.median(centres)) - floor <= high:
        dropped[NOT_ABOVE] += 1
