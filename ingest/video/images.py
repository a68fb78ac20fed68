"""Reads a run of images of a folder into the views of a clip, with poses and depth where files beside them say so.

Images stay the bytes they are, unless a size is asked for; each is decoded once all the same (JPEGs at an eighth of
their size), because a trainer should not be the first to notice that it is broken. A broken image costs itself, not the
clip, and is counted. EXIF orientation is not applied, and counted: poses and intrinsics are those of the pixels as
stored.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import simplejpeg
from PIL import Image

from brickyard.ingest.images import image_error, image_header
from brickyard.ingest.source import RawFiles
from brickyard.ingest.transforms import MAX_IMAGE_BYTES, PosedImage, load_view, read_depth_png, read_transforms
from brickyard.shards.errors import NONSENSE, ImageError, RawDataError
from brickyard.shards.images import load, orientation, rgb
from brickyard.shards.scene import Depth, Float64, View

MAX_TEXT_BYTES = 1 << 16
COLOR_K = (525.0, 525.0, 319.5, 239.5)
DEPTH_K = (585.0, 585.0, 319.5, 239.5)
"""fx fy cx cy of the Kinect that took 7-Scenes, whose release has no file of them (its page gives those of depth)."""
UNKNOWN_DEPTH = 65535


def read_images(files: RawFiles) -> tuple[list[View], Float64, dict[str, int]]:
    """(views, world_from_scene, dropped) of a reference of kind "images".

    Raises:
        RawDataError: fewer than two images are sound, or `transforms.json` is not.
    """
    details, dropped = files.ref.details, Counter(files.ref.details["dropped"])
    times = details["times_ns"]
    paths = sorted((role, path) for role, path in files.ref.files.items() if role.startswith("image/"))
    posed = _posed_images(files)
    shared = _text_matrix(files, files.ref.files["intrinsics"], 3) if "intrinsics" in files.ref.files else None
    views: list[View] = []
    problems: list[RawDataError] = []
    for number, (role, path) in enumerate(paths):
        try:
            if posed is None:
                view = _view(files, role.removeprefix("image/"), path, shared, dropped)
            elif path in posed:
                view = load_view(files, posed[path], scene_from_world=np.eye(4), dropped=dropped)
            else:
                dropped["invalid pose"] += 1
                continue
            dropped["orientations in EXIF, not applied"] += orientation(view.image) != 1
            view = checked(files, path, view, details["short_side"], details["quality"])
        except RawDataError as problem:
            problems.append(problem)
            dropped["broken images"] += 1
            continue
        views.append(view if times is None else replace(view, timestamp_ns=times[number]))
    if len(views) < 2:
        if problems:
            raise problems[0]
        raise files.error(paths[0][1], f"{len(views)} of {len(paths)} images are left, a clip needs 2")
    views, world_from_scene = near_origin(views)
    return views, world_from_scene, {what: count for what, count in dropped.items() if count}


def near_origin(views: list[View]) -> tuple[list[View], Float64]:
    """The views with the first camera that has a pose at the origin, axes of the world; and world_from_scene."""
    first = next((view.scene_from_camera for view in views if view.scene_from_camera is not None), None)
    world_from_scene = np.eye(4)
    if first is not None:
        world_from_scene[:3, 3] = first[:3, 3]
    moved: list[View] = []
    for view in views:
        if view.scene_from_camera is not None:
            pose = view.scene_from_camera.copy()
            pose[:3, 3] -= world_from_scene[:3, 3]
            view = replace(view, scene_from_camera=pose)
        moved.append(view)
    return moved, world_from_scene


def assumed_intrinsics(width: int, height: int, focal: float) -> Float64:
    """float64 (3, 3): `focal` times the longer side, principal point in the middle."""
    length = focal * max(width, height)
    return np.array([[length, 0, width / 2 - 0.5], [0, length, height / 2 - 0.5], [0, 0, 1]])


def _posed_images(files: RawFiles) -> dict[str, PosedImage] | None:
    if "transforms" not in files.ref.files:
        return None
    return {image.image: image for image in read_transforms(files, files.ref.files["transforms"]).images}


def _view(files: RawFiles, number: str, path: str, shared: Float64 | None, dropped: Counter[str]) -> View:
    data = files.read(path, limit=MAX_IMAGE_BYTES)
    header = image_header(files, path, data)
    view = View(
        name=path.rpartition("/")[2].rpartition(".")[0], image=data, image_format=header.format, width=header.width,
        height=header.height, intrinsics=assumed_intrinsics(*header.size, files.ref.details["focal"]),
    )  # fmt: skip
    depth, pose = (files.ref.files.get(f"{role}/{number}") for role in ("depth", "pose"))
    if depth is None and pose is None:
        dropped["views with assumed intrinsics"] += 1
        return view
    view = replace(
        view, name=view.name.removesuffix(".color"), intrinsics=_kinect(COLOR_K) if shared is None else shared
    )
    if pose is not None:
        view = replace(view, scene_from_camera=_read_pose(files, pose, dropped))
    if depth is not None:
        view = replace(view, depth=_read_depth(files, depth, dropped, _kinect(DEPTH_K) if shared is None else shared))
    return view


def _kinect(values: tuple[float, float, float, float]) -> Float64:
    fx, fy, cx, cy = values
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _text_matrix(files: RawFiles, path: str, rows: int) -> Float64:
    try:
        values = np.array(files.read(path, MAX_TEXT_BYTES).split(), np.float64).reshape(rows, rows)
    except NONSENSE as problem:
        raise files.error(path, f"expected {rows} x {rows} numbers", hint="download it again") from problem
    if not np.isfinite(values).all():
        raise files.error(path, f"the {rows} x {rows} numbers are not finite")
    return values


def _read_pose(files: RawFiles, path: str, dropped: Counter[str]) -> Float64 | None:
    """Camera-to-world, 4 x 4; None (and counted) if it is no rigid motion, as where tracking was lost."""
    try:
        pose = _text_matrix(files, path, 4)
    except RawDataError:
        pose = np.zeros((4, 4))
    rotation = pose[:3, :3]
    rigid = np.abs(rotation @ rotation.T - np.eye(3)).max() < 5e-4 and np.linalg.det(rotation) > 0
    if not rigid or not np.allclose(pose[3], (0, 0, 0, 1)) or np.abs(pose).max() > 1e9:
        dropped["invalid pose"] += 1
        return None
    return pose


def _read_depth(files: RawFiles, path: str, dropped: Counter[str], intrinsics: Float64) -> Depth | None:
    """Millimetres, 0 and 65535 where nothing was measured; a broken depth image costs itself, not its view."""
    try:
        values = read_depth_png(files, path)
    except RawDataError:
        dropped["broken depth images"] += 1
        return None
    values[values == UNKNOWN_DEPTH] = 0
    return Depth(values=values, scale=1e-3, intrinsics=intrinsics)


def checked(files: RawFiles, path: str, view: View, short_side: int | None, quality: int) -> View:
    """The view, its image decoded to see that it is whole; encoded anew where it is larger than `short_side`."""
    image_header(files, path, view.image, decoded=True)
    scale = 1.0 if short_side is None else short_side / min(view.width, view.height)
    if scale >= 1:
        return view
    width, height = max(1, round(view.width * scale)), max(1, round(view.height * scale))
    try:
        small = rgb(load(view.image)).resize((width, height), Image.Resampling.LANCZOS)
    except ImageError as problem:
        raise image_error(files, path, problem) from None
    intrinsics = view.intrinsics.copy()
    intrinsics[:2, 2] += 0.5
    intrinsics = np.diag([width / view.width, height / view.height, 1.0]) @ intrinsics
    intrinsics[:2, 2] -= 0.5
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality, "RGB", "420")
    return replace(view, image=data, image_format="jpeg", width=width, height=height, intrinsics=intrinsics)
