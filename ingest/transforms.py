"""`transforms.json`: posed images in the convention of instant-ngp and nerfstudio, for whoever has no other format.

    {"fl_x": 610.0, "fl_y": 610.0, "cx": 320.0, "cy": 240.0, "w": 640, "h": 480, "k1": 0.01,
     "frames": [{"file_path": "images/000.jpg", "transform_matrix": [[...], [...], [...], [0, 0, 0, 1]],
                 "depth_file_path": "depth/000.png"}]}

`transform_matrix` is world-from-camera with OpenGL axes (x right, y up, z backward); here it becomes OpenCV's (x right,
y down, z forward). Pixel coordinates of the file have their origin at the corner of the image, as COLMAP's do; here the
centre of the top left pixel is (0, 0), so half a pixel is taken off the principal point. Any calibration value of a
frame overrides that of the file; `camera_angle_x` (radians) stands in for a missing focal length. Paths are relative to
the folder of the file, and none may leave the dataset's root. Nothing but the JSON is opened here; `load_view` reads
the image.

What a `View` cannot express is left out and counted: fisheye and 360 degree cameras, image formats beyond JPEG and PNG,
matrices that are no rigid motion. Depth that is no 16-bit grey PNG costs itself, not its image. An image whose shape is
not the one that was calibrated (a capture that was turned afterwards) is refused, not stretched.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.images import image_error, image_header
from brickyard.ingest.source import RawFiles
from brickyard.shards.errors import NONSENSE, ImageError, RawDataError
from brickyard.shards.images import load
from brickyard.shards.scene import CameraModel, Depth, Float64, View

NAME = "transforms.json"
MAX_JSON_BYTES = 64 << 20
MAX_FRAMES = 100_000
MAX_IMAGE_BYTES = 64 << 20
MAX_DEPTH_PIXELS = 64 << 20
DEPTH_SCALE = 1e-3
"""Metres per unit of a depth image where the file does not say: millimetres, as in nerfstudio."""
SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of images; what is in them decides whether they are JPEG or PNG."""
MODELS = ("", "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
"""Camera models that are a pinhole with at most the distortion k1 k2 p1 p2 k3."""
OTHER_MODELS = (
    "OPENCV_FISHEYE", "FISHEYE", "FISHEYE624", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE",
    "FULL_OPENCV", "FOV", "EQUIRECTANGULAR", "OMNIDIRECTIONALSTEREO_L", "OMNIDIRECTIONALSTEREO_R", "ORTHOPHOTO",
    "VR180_L", "VR180_R",
)  # fmt: skip
"""Those of nerfstudio and COLMAP that are named when their frames are left out."""
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class PosedImage:
    """One frame of the file.

    Attributes:
        name: `file_path` as the file gives it, without its suffix.
        image: path relative to the dataset's root.
        camera_model, distortion: as in `shards.scene.View`.
        world_from_camera: float64 (4, 4), rigid, OpenCV axes, in the unit of the file.
        size: (width, height) that the calibration is for; None if the file gives none: that of the image.
        focal: (x, y) in pixels; None where it follows from `angle_x`.
        angle_x: horizontal field of view, radians, or None.
        centre: principal point with the origin at the corner of the image; None is the middle.
        depth: path of a 16-bit PNG of depths along z, or None.
        depth_scale: metres per unit of it.
    """

    name: str
    image: str
    camera_model: CameraModel
    distortion: tuple[float, ...]
    world_from_camera: Float64
    size: tuple[int, int] | None
    focal: tuple[float, float] | None
    angle_x: float | None
    centre: tuple[float, float] | None
    depth: str | None
    depth_scale: float

    def fits(self, width: int, height: int) -> bool:
        """Whether an image of this size has the shape that was calibrated, as far as whole pixels can tell."""
        if self.size is None:
            return True
        stretch = (width * self.size[1]) / (height * self.size[0])
        return abs(stretch - 1) <= 0.01 + 1 / width + 1 / height

    def intrinsics(self, width: int, height: int) -> Float64:
        """float64 (3, 3) for an image of this size, which may be a smaller copy of the one that was calibrated."""
        whole_width, whole_height = self.size or (width, height)
        focal_x, focal_y = self.focal or (whole_width / 2 / math.tan((self.angle_x or 0) / 2),) * 2
        centre_x, centre_y = self.centre or (whole_width / 2, whole_height / 2)
        x, y = width / whole_width, height / whole_height
        return np.array([[focal_x * x, 0, centre_x * x - 0.5], [0, focal_y * y, centre_y * y - 0.5], [0, 0, 1]])


@dataclass(frozen=True, kw_only=True)
class Transforms:
    """A whole file.

    Attributes:
        images: in the order of the file.
        points: path of the point file it names (`ply_file_path`) relative to the dataset's root, or None.
        dropped: what was left out and how often.
        unused: paths of the images of frames that were left out.
    """

    images: tuple[PosedImage, ...]
    points: str | None
    dropped: Mapping[str, int]
    unused: tuple[str, ...] = ()


def read_transforms(files: RawFiles, path: str) -> Transforms:
    """Parse the file at `path`; raises `RawDataError` where it is no such file, or names a path outside of the root."""
    try:
        content = json.loads(files.read(path, limit=MAX_JSON_BYTES))
        frames = content["frames"]
        whole = {key: value for key, value in content.items() if key != "frames"}
        if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
            raise TypeError
    except NONSENSE as problem:
        said = str(problem)[:100] if isinstance(problem, json.JSONDecodeError) else "no object with a list of `frames`"
        raise files.error(path, said, hint="expected a transforms.json of nerfstudio or instant-ngp") from None
    if len(frames) > MAX_FRAMES:
        raise files.error(path, f"{len(frames)} frames, at most {MAX_FRAMES} are read")
    images: list[PosedImage] = []
    dropped: Counter[str] = Counter()
    unused: list[str] = []
    for number, frame in enumerate(frames):
        try:
            found = _read_frame(files, path, number, whole | frame)
        except NONSENSE as problem:
            raise files.error(path, f"frame {number} (from 0): {problem}"[:200]) from None
        if isinstance(found, _LeftOut):
            dropped[found.reason] += 1
            unused.append(found.image)
        else:
            images.append(found)
    points = whole.get("ply_file_path")
    return Transforms(
        images=tuple(images),
        points=_resolve(files, path, points, "ply_file_path") if isinstance(points, str) else None,
        dropped=dict(dropped),
        unused=tuple(unused),
    )


@dataclass(frozen=True)
class _LeftOut:
    """A frame that is not kept, and why."""

    image: str
    reason: str


def _read_frame(files: RawFiles, path: str, number: int, entry: Mapping[str, Any]) -> PosedImage | _LeftOut:
    """A frame with the file's values filled in."""
    name = entry.get("file_path")
    if not isinstance(name, str) or not name:
        raise ValueError("file_path is missing")
    number_of = {key: _number(entry, key) for key in ("k1", "k2", "p1", "p2", "k3", "k4")}
    distortion = tuple(number_of[key] or 0.0 for key in ("k1", "k2", "p1", "p2", "k3"))
    image = _resolve(files, path, name, f"frame {number}: file_path")
    if posixpath.splitext(image)[1].lower() not in SUFFIXES:
        # The NeRF paper's own scenes leave the suffix out.
        found = [image + suffix for suffix in SUFFIXES if files.store.size(image + suffix) is not None]
        if not found:
            return _LeftOut(image, "frames whose image is neither JPEG nor PNG")
        image = found[0]
    if (reason := _other_camera(entry.get("camera_model", ""), entry.get("is_fisheye"), number_of["k4"])) is not None:
        return _LeftOut(image, reason)
    calibration = _calibration(entry)
    pose = _pose(entry.get("transform_matrix"))
    if pose is None:
        return _LeftOut(image, "invalid pose")
    depth, scale = _depth(files, path, number, entry)
    name = name.replace("\\", "/")
    return PosedImage(
        name=posixpath.splitext(name.removeprefix("./"))[0], image=image, world_from_camera=pose,
        camera_model="opencv" if any(distortion) else "pinhole", distortion=distortion if any(distortion) else (),
        depth=depth, depth_scale=scale, **calibration,
    )  # fmt: skip


def _other_camera(model: object, is_fisheye: object, k4: float | None) -> str | None:
    """What is counted for a frame whose camera a `View` cannot express."""
    if model not in MODELS:
        return f"frames of the camera model {model if model in OTHER_MODELS else 'that is not known'}"
    return "frames of a fisheye camera" if is_fisheye or k4 else None


def _calibration(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Size, focal lengths and principal point; raises ValueError for values no camera has."""
    values = {key: _number(entry, key) for key in ("w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x")}
    width, height, focal_x, focal_y, angle = (values[key] for key in ("w", "h", "fl_x", "fl_y", "camera_angle_x"))
    for key in ("w", "h", "fl_x", "fl_y"):
        value = values[key]
        if value is not None and not 0 < value < 1e6:
            raise ValueError(f"{key} is {value}")
    if angle is not None and not 0.001 < angle < math.pi - 0.001:
        raise ValueError(f"camera_angle_x is {angle}, radians are expected")
    if focal_x is None and angle is None:
        raise ValueError("neither fl_x nor camera_angle_x is given")
    centre = values["cx"], values["cy"]
    if (width is None) != (height is None) or (centre[0] is None) != (centre[1] is None):
        raise ValueError("w and h, and cx and cy, are given together or not at all")
    return {
        "size": None if width is None or height is None else (max(1, int(width)), max(1, int(height))),
        "focal": None if focal_x is None else (focal_x, focal_x if focal_y is None else focal_y),
        "angle_x": angle,
        "centre": None if None in centre else centre,
    }


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} is no finite number")
    return float(value)


def _pose(matrix: object) -> Float64 | None:
    """float64 (4, 4) with OpenCV axes from three or four rows with OpenGL axes; None if it is no rigid motion."""
    try:
        rows = np.array(matrix, np.float64)
    except NONSENSE:
        return None
    if rows.shape not in ((3, 4), (4, 4)) or not np.isfinite(rows).all() or np.abs(rows).max() > 1e9:
        return None
    pose = np.eye(4)
    pose[:3] = rows[:3]
    rotation = pose[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 5e-4 or np.linalg.det(rotation) < 0:
        return None
    opencv: Float64 = pose @ _OPENCV_FROM_OPENGL
    return opencv


def _depth(files: RawFiles, path: str, number: int, entry: Mapping[str, Any]) -> tuple[str | None, float]:
    """Path and scale: `depth_file_path` of nerfstudio, `depth_path` and `integer_depth_scale` of instant-ngp."""
    for key, scale_key in (("depth_file_path", "depth_unit_scale_factor"), ("depth_path", "integer_depth_scale")):
        name = entry.get(key)
        if isinstance(name, str) and name:
            scale = _number(entry, scale_key)
            if scale is not None and not 1e-9 < scale < 1e3:
                raise ValueError(f"{scale_key} is {scale}")
            return _resolve(files, path, name, f"frame {number}: {key}"), DEPTH_SCALE if scale is None else scale
    return None, DEPTH_SCALE


def _resolve(files: RawFiles, path: str, name: str, what: str) -> str:
    """A path of the file, relative to the dataset's root; on Windows they are written with backslashes."""
    plain = name.replace("\\", "/")
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(path), plain))
    if (
        plain.startswith("/")
        or re.match("[A-Za-z]:", plain)
        or whole == ".."
        or whole.startswith("../")
        or "\0" in name
    ):
        raise files.error(path, f"{what} {name[:100]!r} leaves the dataset's root", hint="write a relative path")
    return whole


def load_view(
    files: RawFiles,
    image: PosedImage,
    *,
    scene_from_world: Float64,
    metres_per_unit: float = 1.0,
    dropped: Counter[str] | None = None,
) -> View:
    """The view of a frame: image bytes as they are, and its depth image if there is one.

    Args:
        scene_from_world: float64 (4, 4), rigid, metres.
        metres_per_unit: of the poses in the file.
        dropped: counts depth that is missing, damaged or of another kind, and is left out; without it that is an error.

    Raises:
        RawDataError: the image is missing, damaged, no JPEG or PNG, or of another shape than the calibrated one.
    """
    data = files.read(image.image, limit=MAX_IMAGE_BYTES)
    header = image_header(files, image.image, data)
    if image.size is not None and not image.fits(*header.size):
        found, calibrated = (f"{width}x{height}" for width, height in (header.size, image.size))
        raise files.error(
            image.image, f"the image is {found}, its calibration is for {calibrated}, another shape",
            hint="was it turned or cropped afterwards, or does EXIF turn it?",
        )  # fmt: skip
    world_from_camera = image.world_from_camera.copy()
    world_from_camera[:3, 3] *= metres_per_unit
    return View(
        name=image.name, image=data, image_format=header.format, width=header.width, height=header.height,
        camera_model=image.camera_model, distortion=image.distortion, intrinsics=image.intrinsics(*header.size),
        scene_from_camera=scene_from_world @ world_from_camera, depth=_load_depth(files, image, dropped),
    )  # fmt: skip


def _load_depth(files: RawFiles, image: PosedImage, dropped: Counter[str] | None) -> Depth | None:
    """The depth of a frame; None where it has none, or where it cannot be used and that is counted."""
    if image.depth is None:
        return None
    if dropped is not None and files.store.size(image.depth) is None:
        dropped["depth images that are missing"] += 1
        return None
    try:
        values = read_depth_png(files, image.depth)
    except RawDataError:
        if dropped is None:
            raise
        dropped["depth images that are damaged or no 16-bit grey PNG"] += 1
        return None
    height, width = values.shape
    if not image.fits(width, height):
        if dropped is None:
            raise files.error(image.depth, f"depth of {width}x{height}, another shape than that of its image")
        dropped["depth images of another shape than their image"] += 1
        return None
    return Depth(values=values, scale=image.depth_scale, intrinsics=image.intrinsics(width, height))


def read_depth_png(files: RawFiles, path: str) -> NDArray[np.uint16]:
    """uint16 (h, w) of a 16-bit grey PNG; raises `RawDataError` for anything else."""
    data = files.read(path, limit=MAX_IMAGE_BYTES)
    header = image_header(files, path, data, expected="png")
    if header.width * header.height > MAX_DEPTH_PIXELS or (header.bits, header.kind) != (16, "grey"):
        raise files.error(path, f"a depth image is a 16-bit grey PNG of at most {MAX_DEPTH_PIXELS} pixels", offset=24)
    try:
        return np.asarray(load(data)).astype(np.uint16)
    except ImageError as problem:
        raise image_error(files, path, problem) from None
