"""One walk -> Scene: frames fused to points, or the semi-dense points, and frames as views.

The scene frame has the world's axes (z up, floor at zero), with its origin at whole metres near the first camera;
`world_from_scene` leads back. A pixel becomes a point where it was measured (not by the near plane, which reads exactly
10 cm), lies within the lens's circle (its colour is dark elsewhere) and is not seen at a grazing angle; of the points
in a cube of `grid_m` the first frame's stays.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.agreement import agreement
from brickyard.ingest.archived import ArchivedFiles
from brickyard.ingest.ase.camera import DISTORTION, INTRINSICS, RADIUS, SIZE
from brickyard.ingest.ase.tables import (
    LANGUAGE,
    POINTS,
    TAXONOMY,
    TRAJECTORY,
    Trajectory,
    read_language,
    read_names,
    read_semidense,
    read_trajectory,
)
from brickyard.ingest.ase.upright import quarter_turns
from brickyard.ingest.clips import spread_evenly
from brickyard.ingest.images import image_error, image_header
from brickyard.ingest.source import SceneRef
from brickyard.ingest.surfaces import NORMALS, first_in_cells, surface
from brickyard.shards.cameras import rays
from brickyard.shards.errors import ImageError, RawDataError, SceneError
from brickyard.shards.images import decode, load
from brickyard.shards.scene import Depth, Float32, Float64, Identity, Points, Scene, View

LICENCE, VERSION = "LicenseRef-Aria-ASE", "2023"
NAMES = "object_instances_to_classes.json"
NEAR_PLANE, NOTHING = 100, 65535
"""Millimetres: what lies before the near plane, and what the ray did not meet."""
MAX_IMAGE = 8 << 20
UPRIGHT = "images that were turned upright no longer fit their calibration and poses: use them as they were released"
_FOLDERS = {"rgb": ("rgb", re.compile(r"vignette(\d{7})\.jpg")),
            "depth": ("depth", re.compile(r"depth(\d{7})\.png")),
            "instances": ("instances", re.compile(r"instance(\d{7})\.png"))}  # fmt: skip
_PROBES, _CHECKED = 4000, 6


@dataclass(frozen=True, eq=False)
class _Frame:
    """A frame with its pixels; `view` is in the world, with depth and without labels."""

    number: int
    view: View
    color: NDArray[np.uint8]
    instance: NDArray[np.int32] | None

    @property
    def depth(self) -> Depth:
        assert self.view.depth is not None
        return self.view.depth

    @property
    def pose(self) -> Float64:
        assert self.view.scene_from_camera is not None
        return self.view.scene_from_camera


def read(ref: SceneRef) -> Scene:
    """Read the walk of a reference made by `plan`.

    Returns a validated Scene. Points have colour, normals, classes ("ase43") and instances, unless they are the
    semi-dense ones. Raises `RawDataError` for a walk without a usable frame, and where frames contradict each other.
    """
    files, options, dropped = ArchivedFiles(ref), ref.details["options"], Counter[str]()
    trajectory_path, points_path = (f"{ref.scene_id}/{name}" for name in (TRAJECTORY, POINTS))
    try:
        if "zip" in ref.files:
            files.open_zip(ref.files["zip"], within=ref.scene_id)
        trajectory = read_trajectory(files, trajectory_path, dropped)
        classes = _classes(files, ref, dropped)
        frames = _read_frames(files, ref, trajectory, options, dropped)
        _check(files, ref, frames, options)
        place = next(iter(frames)).pose[:3, 3] if frames else np.nanmean(trajectory.world_from_camera[:, :3, 3], axis=0)
        origin = np.array([*np.rint(place[:2]), 0.0])
        if options["points"] == "semidense":
            xyz = read_semidense(files, points_path, options, dropped)
            points = Points(xyz=(xyz.astype(np.float64) - origin).astype(np.float32))
        else:
            points = _fused(frames, classes, origin, options, dropped)
        commands = _commands(files, ref, origin, dropped)
        sources = files.sources()
    finally:
        files.store.close()
    if not len(points):
        where = points_path if options["points"] == "semidense" else f"{ref.scene_id}/depth"
        raise files.error(where, "nothing of it became a point")
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = origin
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=f"{VERSION}-{options['points']}", split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=frames[0].view.timestamp_ns if frames else None, domain="indoor",
            licence=LICENCE, sources=sources,
        ),
        world_from_scene=world_from_scene,
        points=points,
        views=tuple(_views(frames, classes, origin, options)),
        annotations={"scene_language": commands} if commands else {},
        dropped=dict(+dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as wrong:
        raise files.error(trajectory_path, str(wrong)) from wrong


def _classes(files: ArchivedFiles, ref: SceneRef, dropped: Counter[str]) -> NDArray[np.int16] | None:
    path = f"{ref.scene_id}/{NAMES}"
    if not files.has(path):
        dropped[f"walk without its {NAMES}"] += 1
        return None
    return read_names(files, path, dropped)


def _commands(files: ArchivedFiles, ref: SceneRef, origin: Float64, dropped: Counter[str]) -> list[dict[str, Any]]:
    """Of the scene language; none, counted, where it is damaged or not there: points and views do without."""
    path = f"{ref.scene_id}/{LANGUAGE}"
    if not files.has(path):
        dropped[f"walk without its {LANGUAGE}"] += 1
        return []
    try:
        return read_language(files, path, origin)
    except RawDataError:
        dropped[f"walk whose {LANGUAGE} is damaged"] += 1
        return []


def _read_frames(
    files: ArchivedFiles, ref: SceneRef, trajectory: Trajectory, options: dict[str, Any], dropped: Counter[str]
) -> list[_Frame]:
    """The chosen frames that are whole; raises the first problem if none is and points are to come from them."""
    names = {kind: _listed(files, ref.scene_id, kind) for kind in _FOLDERS}
    both = sorted(names["rgb"].keys() & names["depth"].keys())
    dropped["frame without its colour or its depth"] += len(names["rgb"].keys() ^ names["depth"].keys())
    posed = [k for k in both if k < len(trajectory.timestamp_ns) and np.isfinite(trajectory.world_from_camera[k]).all()]
    dropped["frame without a pose"] += len(both) - len(posed)
    chosen: list[int] = []
    for number in posed:
        if not chosen or number >= chosen[-1] + options["every"]:
            chosen.append(number)
    frames, first = [], None
    for number in chosen:
        try:
            frames.append(_read_frame(files, number, names, trajectory, dropped))
        except RawDataError as problem:
            dropped["frame whose images are damaged"] += 1
            first = first or problem
    if not frames and options["points"] == "fused":
        found = f"no frame has colour, depth and a pose ({len(names['depth'])} depth images are here)"
        raise first or files.error(f"{ref.scene_id}/depth", found, hint="download it again")
    return frames


def _listed(files: ArchivedFiles, walk: str, kind: str) -> dict[int, str]:
    folder, pattern = _FOLDERS[kind]
    found = {}
    for name in files.listing(f"{walk}/{folder}"):
        if match := pattern.fullmatch(name):
            found[int(match[1])] = f"{walk}/{folder}/{name}"
    return found


def _read_frame(
    files: ArchivedFiles, number: int, names: dict[str, dict[int, str]], trajectory: Trajectory, dropped: Counter[str]
) -> _Frame:
    path = names["rgb"][number]
    data = files.read(path, MAX_IMAGE)
    header = image_header(files, path, data, expected="jpeg")
    _square(files, path, header.size)
    try:
        color = decode(data)
    except ImageError as problem:
        raise image_error(files, path, problem, "jpeg") from None
    values = _grey(files, names["depth"][number])
    far, near = values == NOTHING, values <= NEAR_PLANE
    dropped["pixel whose ray met nothing"] += int(far.sum())
    dropped["pixel nearer than the near plane"] += int(near.sum())
    values = np.where(far | near, 0, values).astype(np.uint16)
    instance = None
    if number in names["instances"]:
        instance = _grey(files, names["instances"][number]).astype(np.int32)
    else:
        dropped["frame without its instances"] += 1
    view = View(
        name=f"frame-{number:07d}", image=data, image_format="jpeg", width=SIZE, height=SIZE,
        camera_model="fisheye624", intrinsics=INTRINSICS, distortion=DISTORTION,
        scene_from_camera=trajectory.world_from_camera[number], timestamp_ns=int(trajectory.timestamp_ns[number]),
        depth=Depth(values=values, scale=0.001, intrinsics=INTRINSICS, along="ray"),
    )  # fmt: skip
    return _Frame(number, view, color, instance)


def _square(files: ArchivedFiles, path: str, size: tuple[int, int]) -> None:
    if size != (SIZE, SIZE):
        raise files.error(
            path, f"{size[0]}x{size[1]} pixels, the camera has {SIZE}x{SIZE}",
            hint="no calibration of another size is known: use the images as released, and report it if they are",
        )  # fmt: skip


def _grey(files: ArchivedFiles, path: str) -> NDArray[Any]:
    """uint16 (704, 704)."""
    data = files.read(path, MAX_IMAGE)
    header = image_header(files, path, data, expected="png")
    _square(files, path, header.size)
    if (header.kind, header.bits) != ("grey", 16):
        raise files.error(path, f"expected grey of 16 bits, found {header.kind} of {header.bits}")
    try:
        return np.asarray(load(data)).astype(np.uint16)
    except ImageError as problem:
        raise image_error(files, path, problem, "png") from None


def _check(files: ArchivedFiles, ref: SceneRef, frames: list[_Frame], options: dict[str, Any]) -> None:
    """Refuse walks whose frames contradict each other, or whose colours are turned against their depth."""
    least = options["min_agreement"]
    if not least or not frames:
        return
    chosen = [frames[number] for number in spread_evenly(len(frames), _CHECKED)]
    if turns := quarter_turns([(frame.color, frame.depth.values) for frame in chosen]):
        raise files.error(
            f"{ref.scene_id}/rgb", f"colours fit their depth turned by {90 * turns} degrees", hint=UPRIGHT
        )
    shares = []
    for frame, other in pairwise(frames):
        xyz = _probes(other)
        share, agreeing = agreement(frame.view, xyz)
        if share or len(agreeing):
            shares.append(share)
    if len(shares) > 1 and float(np.median(shares)) < least:
        raise files.error(
            f"{ref.scene_id}/depth",
            f"neighbouring frames contradict each other: {np.median(shares):.0%} of what two of them see agrees,"
            f" {least:.0%} was expected",
            hint=UPRIGHT,
        )


_RAYS: list[NDArray[np.float64]] = []


def _rays() -> Float64:
    """Unit directions (704, 704, 3); NaN beyond the lens. The same for every frame: worked out once a process."""
    if not _RAYS:
        row, column = np.indices((SIZE, SIZE))
        inside = np.hypot(column - (SIZE - 1) / 2, row - (SIZE - 1) / 2) <= RADIUS
        lens = View(
            name="rays", image=b"", image_format="jpeg", width=SIZE, height=SIZE, camera_model="fisheye624",
            intrinsics=INTRINSICS, distortion=DISTORTION,
        )  # fmt: skip
        found = np.full((SIZE, SIZE, 3), np.nan)
        found[inside] = rays(np.stack([column[inside], row[inside]], axis=1).astype(np.float64), lens)
        _RAYS.append(found)
    return _RAYS[0]


def _probes(frame: _Frame) -> Float32:
    directions, values = _rays(), frame.depth.values
    good = np.flatnonzero((values > 0) & np.isfinite(directions[..., 0]))
    good = good[:: max(1, len(good) // _PROBES)]
    local = directions.reshape(-1, 3)[good] * (values.ravel()[good, None] * frame.depth.scale)
    return np.asarray(local @ frame.pose[:3, :3].T + frame.pose[:3, 3], np.float32)


def _fused(
    frames: list[_Frame], classes: NDArray[np.int16] | None, origin: Float64, options: dict[str, Any],
    dropped: Counter[str],
) -> Points:  # fmt: skip
    parts: list[tuple[NDArray[Any], ...]] = []
    directions = _rays()
    inside = np.isfinite(directions[..., 0])
    for frame in frames:
        values = np.where(inside, frame.depth.values, 0)
        dropped["pixel beyond the lens's circle"] += int((~inside & (frame.depth.values > 0)).sum())
        seen = surface(np.nan_to_num(directions), values * frame.depth.scale, around=False)
        clear = seen.cosine > options["min_cosine"]  # NaN compares as false
        dropped["pixel at an edge or seen at a grazing angle"] += int((~clear).sum())
        keep = np.flatnonzero(clear)
        rotation, place = frame.pose[:3, :3], frame.pose[:3, 3] - origin
        xyz = (seen.xyz[keep].astype(np.float64) @ rotation.T + place).astype(np.float32)
        first = first_in_cells(xyz, options["grid_m"])
        keep = keep[first]
        pixel = seen.pixel[keep]
        normal = seen.normal[keep] @ rotation.T
        normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32)
        instance = np.zeros(len(keep), np.int32) if frame.instance is None else frame.instance.ravel()[pixel]
        parts.append((xyz[first], frame.color.reshape(-1, 3)[pixel], normal, instance))
    xyz, color, normal, instance = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    first = first_in_cells(xyz, options["grid_m"])
    return Points(
        xyz=xyz[first], color=color[first], normal=normal[first], normal_source=NORMALS,
        semantic={} if classes is None else {TAXONOMY: classes[instance[first]]}, instance=instance[first],
    )  # fmt: skip


def _views(
    frames: list[_Frame], classes: NDArray[np.int16] | None, origin: Float64, options: dict[str, Any]
) -> list[View]:
    views = []
    for number in spread_evenly(len(frames), options["max_views"]) if options["max_views"] else []:
        frame, labels = frames[number], options["read_labels"]
        pose = frame.pose.copy()
        pose[:3, 3] -= origin
        shown = frame.instance if labels else None
        views.append(
            replace(
                frame.view,
                scene_from_camera=pose,
                depth=frame.depth if options["read_depth"] else None,
                semantic={} if shown is None or classes is None else {TAXONOMY: classes[shown]},
                instance=shown,
            )
        )
    return views
