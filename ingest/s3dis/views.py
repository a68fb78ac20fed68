"""The views of a room in 2D-3D-S: images rendered from the scanned mesh, with pose, depth and labels of each pixel.

`pose` is JSON. Its `camera_rt_matrix` leads from the world of the area to the camera (x right, y down, z forward), and
has to agree with `camera_location`, which it implies: a view where it does not is left out. `camera_k_matrix` counts
pixels from the corner of the image as renderers do (540 is the middle of 1080), so half a pixel is taken off.
`depth` is a 16-bit PNG along the camera's z, 1/512 m a unit, 65535 where nothing was hit.
`semantic` is a colour PNG whose 24 bits are a place in the list of semantic_labels.json; an entry is
`<class>_<instance>_<room type>_<room>_<area>`, its place serves as instance id (places beyond the list: nothing known).

Which frame the poses are in depends on the release of the points, and area_5b has one of its own, so no pose is
believed that the points speak against: they are projected into the view, and those that lie on the measured surface
are weighed against those that float in front of it, where the camera saw through. What lies behind is hidden and says
nothing. A view costs about 60 ms, most of it for its PNGs.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.agreement import agreement
from brickyard.ingest.images import image_size
from brickyard.ingest.s3dis.plan import TAXONOMY, class_id
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE
from brickyard.shards.scene import UNLABELLED, Depth, Float32, Float64, View

DEPTH_SCALE = 1 / 512
NO_DEPTH = 65535
MAX_POSE_BYTES = 1 << 20
MAX_LABELS_BYTES = 8 << 20
MAX_IMAGE_BYTES = 64 << 20
MAX_PIXELS = 1 << 24
MAX_PROBES = 50_000
INVALID_POSE = "view with an invalid pose"
CONTRADICTED = "view whose depth contradicts the points"


class LabelTable:
    """semantic_labels.json: place in the list -> class id; class and instance images from a semantic PNG."""

    def __init__(self, files: RawFiles, path: str) -> None:
        try:
            names = json.loads(files.read(path, MAX_LABELS_BYTES))
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise TypeError("no list of texts")
        except NONSENSE as problem:
            raise files.error(path, f"expected a list of labels: {problem}"[:200], hint="download it again") from None
        ids = [class_id(name.partition("_")[0]) for name in names]
        known = [UNLABELLED if ident is None else ident for ident in ids]
        self._class = np.array([*known, UNLABELLED], np.int16)
        self._instance = np.array([0 if k == UNLABELLED else place for place, k in enumerate(known)] + [0], np.int32)

    def decode(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
        """(class ids int16 (H, W), instances int32 (H, W)) of a semantic image uint8 (H, W, 3)."""
        wide = rgb.astype(np.int32)
        place = np.minimum((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2], len(self._class) - 1)
        return self._class[place], self._instance[place]


def read_views(
    files: RawFiles, scene_from_world: Float64, xyz: Float32, dropped: Counter[str]
) -> list[tuple[View, Float32]]:
    """The views of the reference, each with the points (K, 3) of the scene that lie on what it sees.

    Args:
        scene_from_world: float64 (4, 4), from the frame of the annotation files.
        xyz: float32 (N, 3), points of the whole room in the scene frame.
        dropped: counts what is left out and why.

    Raises:
        RawDataError: an image, pose or label table that cannot be decoded.
    """
    details = files.ref.details
    probes = xyz[:: max(1, len(xyz) // MAX_PROBES)]
    labels = LabelTable(files, files.ref.files["labels"]) if "labels" in files.ref.files else None
    views = []
    for entry in details["views"]:
        view = _read_view(files, entry, scene_from_world, labels)
        if view is None:
            dropped[INVALID_POSE] += 1
            continue
        share, seen = agreement(view, probes)
        if view.depth is not None and (share < details["min_agreement"] or not len(seen)) and details["min_agreement"]:
            dropped[CONTRADICTED] += 1
        else:
            views.append((view, seen))
    return views


def _read_view(
    files: RawFiles, entry: Mapping[str, Any], scene_from_world: Float64, labels: LabelTable | None
) -> View | None:
    """A view; None if its pose is no camera's."""
    path = {kind: files.ref.files[role] for kind, role in entry["roles"].items()}
    camera = _read_pose(files, path["pose"], entry["name"])
    if camera is None:
        return None
    intrinsics, world_from_camera = camera
    data = files.read(path["rgb"], MAX_IMAGE_BYTES)
    width, height = image_size(files, path["rgb"], data, "png")
    depth, semantic, instance = None, {}, None
    if "depth" in path:
        values = _decode(files, path["depth"], (width, height), b"\x10\0").astype(np.uint16)
        values[values == NO_DEPTH] = 0
        depth = Depth(values=values, scale=DEPTH_SCALE, intrinsics=intrinsics)
    if "semantic" in path and labels is not None:
        classes, instance = labels.decode(_decode(files, path["semantic"], (width, height), b"\x08\2"))
        semantic = {TAXONOMY: classes}
    return View(
        name=entry["name"], image=data, image_format="png", width=width, height=height, intrinsics=intrinsics,
        scene_from_camera=scene_from_world @ _frame(*entry["frame"]) @ world_from_camera, depth=depth,
        semantic=semantic, instance=instance,
    )  # fmt: skip


def _read_pose(files: RawFiles, path: str, view: str) -> tuple[Float64, Float64] | None:
    """(intrinsics (3, 3), world_from_camera (4, 4)); None where they are no camera's, contradict its location, or
    belong to another scan location than the view `camera_<uuid>_frame_<i>`."""
    try:
        table = json.loads(files.read(path, MAX_POSE_BYTES))
        owner = table.get("camera_uuid")
        k, rt, place = (
            np.array(table[key], np.float64) for key in ("camera_k_matrix", "camera_rt_matrix", "camera_location")
        )
    except NONSENSE as problem:
        message = f"no pose with camera_k_matrix, camera_rt_matrix and camera_location: {problem}"
        raise files.error(path, message[:200], hint="download it again") from None
    if isinstance(owner, str) and not view.startswith(f"camera_{owner}_"):
        return None
    rt = rt.T if rt.shape == (4, 3) else rt[:3] if rt.shape == (4, 4) else rt
    if k.shape != (3, 3) or rt.shape != (3, 4) or place.shape != (3,):
        return None
    if not all(np.isfinite(values).all() and np.abs(values).max() < 1e6 for values in (k, rt, place)):
        return None
    rotation, centre = rt[:, :3], -rt[:, :3].T @ rt[:, 3]
    rigid = np.abs(rotation @ rotation.T - np.eye(3)).max() < 5e-4 and np.linalg.det(rotation) > 0
    if not (rigid and np.abs(centre - place).max() < 1e-3 and k[0, 0] > 0 and k[1, 1] > 0 and k[2, 2] == 1):
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, centre
    return k - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]], pose


def _frame(degrees: float, x: float, y: float, z: float) -> Float64:
    """Rigid (4, 4): a turn about z, then a shift."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z], [0, 0, 0, 1.0]])


def _decode(files: RawFiles, path: str, size: tuple[int, int], kind: bytes) -> NDArray[Any]:
    """Pixels of a PNG of the size (width, height) and kind (bits, colour type) that were expected."""
    from PIL import Image

    data = files.read(path, MAX_IMAGE_BYTES)
    found = image_size(files, path, data, "png")
    if found != size or size[0] * size[1] > MAX_PIXELS or data[24:26] != kind:
        what = "a 16-bit grey" if kind[0] == 16 else "an 8-bit colour"
        problem = f"expected {what} PNG of {size[0]}x{size[1]} pixels as the colour image, at most {MAX_PIXELS}"
        raise files.error(path, f"{problem}; it has {found[0]}x{found[1]} and kind {data[24:26].hex()}", offset=16)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.array(image)
    except (OSError, struct.error, zlib.error, *NONSENSE) as problem:
        raise files.error(path, f"the PNG cannot be decoded: {problem}"[:200], hint="download it again") from problem
