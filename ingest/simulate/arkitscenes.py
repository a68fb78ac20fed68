"""Writes simulated rooms the way ARKitScenes ships its captures: mesh, boxes, a tablet's trajectory, frames, depth.

    3dod/<fold>/<id>/...   raw/<fold>/<id>/...   and in each metadata.csv and the official list of folds

Captures come in pairs that show one room, each in its own world. The first pair of every two is one visit, which lies
in both folds, as one visit of the dataset does; of the second pair, one capture's visit is not known. The tablet is
turned by 90 degrees, by 180 and so on; what metadata.csv says of it is wrong for every second capture. Frames are taken
at 20 Hz, poses at 10 Hz and up to two milliseconds off. Raw has the first capture of each pair, with two larger sizes
of the frames with poses, and the device's confidence, of which a twentieth of the depth is low, and wrong. It also has
a capture without mesh, one of those that were published so.

The truth has the class and box of each vertex, and of each frame its pose, its depth along z and its low confidence.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.scannet import CAMERA_AXES, _ply, _vertex_colors
from brickyard.ingest.simulate.sensors import Camera, render
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.truth import write_arrays
from brickyard.shards.scene import Float64
from brickyard.shards.taxonomy import taxonomy

Rng = np.random.Generator
CLASSES = {
    "cabinet": "cabinet", "dresser": "cabinet", "refrigerator": "refrigerator", "bookshelf": "shelf", "bed": "bed",
    "sink": "sink", "toilet": "toilet", "bathtub": "bathtub", "chair": "chair", "table": "table", "desk": "table",
    "monitor": "tv_monitor", "couch": "sofa",
}  # fmt: skip
"""Label of the room's models -> class of its box; all others have none."""
SKY = ("Up", "Left", "Down", "Right")
WITHOUT_MESH = 48018149
FIRST_VIDEO, FIRST_VISIT = 41000000, 420000
START_S, FRAME_S = 1627.0, 0.05


@dataclass(frozen=True, kw_only=True)
class _Capture:
    """A capture: its room, where the room lies in the capture's world, and how the tablet is held."""

    video: str
    visit: str
    fold: str
    room: Room
    world_from_room: Float64
    turns: int
    subsets: tuple[str, ...]
    rng: Rng

    def folder(self, out: Path, subset: str) -> Path:
        return out / subset / self.fold / self.video

    def frames(self, out: Path, subset: str) -> Path:
        return self.folder(out, subset) / (f"{self.video}_frames" if subset == "3dod" else "")


def write_arkitscenes(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.arkitscenes_captures` captures below `out`, in both subsets; returns counts."""
    counts = {"captures": 0, "points": 0, "frames": 0}
    rows: list[tuple[str, str, str, str]] = []
    room = None
    for number in range(config.arkitscenes_captures):
        rng = np.random.default_rng((seed, 17, number))
        if number % 2 == 0 or room is None:
            room = build_room(rng, list(ROOMS)[number // 2 % len(ROOMS)], spacing=config.arkitscenes_spacing)
        turns = (number + 1) % 4
        visit = "NA" if number % 4 == 3 else str(FIRST_VISIT + number // 2)
        fold = "Validation" if number % 4 in (1, 2) else "Training"
        capture = _Capture(
            video=str(FIRST_VIDEO + 101 * number), visit=visit, fold=fold, room=room, turns=turns, rng=rng,
            world_from_room=pose(yaw=rng.uniform(-np.pi, np.pi)), subsets=("3dod", "raw")[: 2 - number % 2],
        )  # fmt: skip
        counts["points"] += _write_capture(capture, out, truth / capture.video, config)
        counts["frames"] += 2 * config.arkitscenes_frames
        counts["captures"] += 1
        said = SKY[turns] if number % 2 == 0 else SKY[(turns + 1) % 4]
        rows.append((capture.video, capture.visit, capture.fold, said))
        tick(number + 1, config.arkitscenes_captures)
    _write_tables(out / "3dod", "3dod", rows)
    _write_tables(out / "raw", "raw", [*rows[::2], (str(WITHOUT_MESH), "NA", "Training", "Up")])
    _bytes(out / f"raw/Training/{WITHOUT_MESH}/{WITHOUT_MESH}.mov", b"a film, which nobody opens")
    return counts


def _write_tables(folder: Path, subset: str, rows: list[tuple[str, str, str, str]]) -> None:
    lists = ["video_id,visit_id,fold", *(",".join(row[:3]) for row in rows)]
    _bytes(folder / f"{subset}_train_val_splits.csv", "\n".join(lists).encode())
    # metadata.csv went through a table of numbers: visits of a column with a gap are floats there
    floats = [(video, f"{visit}.0" if visit != "NA" else "", fold, sky) for video, visit, fold, sky in rows]
    lines = ["video_id,visit_id,fold,sky_direction", *(",".join(row) for row in floats)]
    _bytes(folder / "metadata.csv", "".join(f"{line}\n" for line in lines).encode())


def _write_capture(capture: _Capture, out: Path, truth: Path, config: SimulationConfig) -> int:
    """The files of a capture in both subsets; returns its vertices."""
    world, rng = capture.room.world, capture.rng
    walk = _walk(capture, config)
    start = capture.world_from_room @ walk(START_S)
    world_from_room = capture.world_from_room.copy()
    world_from_room[:3, 3] = -start[:3, 3]
    vertices = (world.vertices @ world_from_room[:3, :3].T + world_from_room[:3, 3]).astype(np.float32)
    mesh = _ply(vertices, _vertex_colors(world), world.faces)
    boxes, labels = _boxes(capture, world_from_room)
    annotation = json.dumps({"data": boxes, "skipped": False, "stats": {}, "comment": "", "confirm": True}).encode()
    times = START_S + FRAME_S * np.arange(2 * config.arkitscenes_frames) + 0.681
    lines = []
    for time in times[::2]:
        at = round(float(time + rng.uniform(-0.002, 0.002)), 8)
        lines.append(_pose_line(at, world_from_room @ walk(at)))
    trajectory = "".join(f"{line}\n" for line in lines).encode()
    for subset in capture.subsets:
        folder = capture.folder(out, subset)
        _bytes(folder / f"{capture.video}_3dod_mesh.ply", mesh)
        _bytes(folder / f"{capture.video}_3dod_annotation.json", annotation)
        _bytes(capture.frames(out, subset) / "lowres_wide.traj", trajectory)
    if "raw" in capture.subsets:
        _bytes(capture.folder(out, "raw") / f"{capture.video}.mov", b"a film, which nobody opens")
    arrays: dict[str, NDArray[Any]] = {**labels, "xyz": vertices, "times": times.round(3)}
    for number, time in enumerate(times):
        camera = walk(float(time))
        arrays[f"{time:.3f}_pose"] = world_from_room @ camera
        arrays |= _write_lowres(capture, out, config.arkitscenes_size, f"{time:.3f}", camera)
        if "raw" in capture.subsets and number % 2 == 0:
            arrays |= _write_wide(capture, out, config.arkitscenes_wide_size, f"{time:.3f}", camera)
    write_arrays(truth, arrays)
    return len(vertices)


def _walk(capture: _Capture, config: SimulationConfig) -> Callable[[float], Float64]:
    """Time -> room_from_camera: a walk around the room, looking across it, the tablet turned."""
    width, depth, _ = capture.room.size
    phase = capture.rng.uniform(0, 2 * np.pi)
    rate = np.radians(40 * capture.rng.choice((-1, 1)))
    turned = pose(yaw=np.pi / 2 * capture.turns)

    def at(time: float) -> Float64:
        angle = phase + rate * (time - START_S)
        x, y = width * (0.5 + 0.28 * np.cos(angle)), depth * (0.5 + 0.28 * np.sin(angle))
        view: Float64 = pose(x, y, 1.5 + 0.05 * np.sin(3 * angle), angle + np.pi, 0.3) @ CAMERA_AXES @ turned
        return view

    return at


def _write_lowres(
    capture: _Capture, out: Path, size: tuple[int, int], time: str, view: Float64
) -> dict[str, NDArray[Any]]:
    """A frame of 256 x 192 with its depth, and its confidence in raw; returns its truth."""
    rng, name = capture.rng, f"{capture.video}_{time}"
    camera = _camera(size, float(time))
    picture = render(capture.room.world, camera, view, 0.0, rng)
    metres = np.where(np.isfinite(picture.depth), picture.depth, 0).astype(np.float64)
    sure = rng.choice(np.array([0, 1, 2], np.uint8), metres.shape, p=[0.05, 0.1, 0.85])
    measured = np.where(sure == 0, metres + 0.3, metres * 0.99)  # a hundredth too short, as a study found
    color, depth = _png(picture.color), _png(np.rint(measured * 1000).astype(np.uint16))
    for subset in capture.subsets:
        frames = capture.frames(out, subset)
        _bytes(frames / f"lowres_wide/{name}.png", color)
        _bytes(frames / f"lowres_wide_intrinsics/{name}.pincam", _pincam(camera))
        _bytes(frames / f"lowres_depth/{name}.png", depth)
    if "raw" in capture.subsets:
        _bytes(capture.frames(out, "raw") / f"confidence/{name}.png", _png(sure))
    return {f"{time}_depth": metres.astype(np.float16), f"{time}_confidence": sure}


def _write_wide(
    capture: _Capture, out: Path, size: tuple[int, int], time: str, view: Float64
) -> dict[str, NDArray[Any]]:
    """A frame in the larger sizes, and the laser scanner's depth in six of ten pixels of the largest."""
    rng, name, folder = capture.rng, f"{capture.video}_{time}", capture.frames(out, "raw")
    truth = {}
    for kind, (width, height) in (("wide", size), ("vga_wide", (2 * size[0] // 3, 2 * size[1] // 3))):
        camera = _camera((width, height), float(time))
        picture = render(capture.room.world, camera, view, 0.0, rng)
        _bytes(folder / f"{kind}/{name}.png", _png(picture.color))
        _bytes(folder / f"{kind}_intrinsics/{name}.pincam", _pincam(camera))
        if kind == "wide":
            metres = np.where(np.isfinite(picture.depth), picture.depth, 0)
            sparse = np.where(rng.random(metres.shape) < 0.6, metres, 0)
            _bytes(folder / f"highres_depth/{name}.png", _png(np.rint(sparse * 1000).astype(np.uint16)))
            truth[f"{time}_wide_depth"] = metres.astype(np.float16)
    return truth


def _camera(size: tuple[int, int], time: float) -> Camera:
    """The same camera at any size; it focuses, so its focal length changes with the time."""
    (width, height), focal = size, 0.83 * (1 + 0.01 * np.sin(time))
    k = np.array([[focal * width, 0, 0.497 * width], [0, focal * width, 0.492 * height], [0, 0, 1]])
    return Camera(width=width, height=height, intrinsics=k.round(6))


def _pincam(camera: Camera) -> bytes:
    k = camera.intrinsics
    return f"{camera.width} {camera.height} {k[0, 0]:.6g} {k[1, 1]:.6g} {k[0, 2]:.6g} {k[1, 2]:.6g}".encode()


def _pose_line(time: float, world_from_camera: Float64) -> str:
    """Time, and world to camera: its axis is the eigenvector of 1, the angle is seen by a vector across it."""
    rotation = world_from_camera[:3, :3].T
    values, vectors = np.linalg.eig(rotation)
    axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
    axis /= np.linalg.norm(axis)
    across = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    moved = rotation @ across
    angle = np.arctan2(axis @ np.cross(across, moved), across @ moved)
    shift = -rotation @ world_from_camera[:3, 3]
    numbers = [*(axis * angle), *shift]
    return f"{time:.8f} {' '.join(f'{x:.16g}' for x in numbers)}"


def _boxes(capture: _Capture, world_from_room: Float64) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
    """Boxes along the room's walls, and the truth of which vertex lies in which of them, found in the room."""
    room = capture.room
    place = room.world.vertices.astype(np.float64)
    owner = np.zeros(len(place), np.int64)
    owner[room.world.faces.ravel()] = np.repeat(np.arange(len(room.world.faces)), 3)
    boxes, sizes = [], []
    label, box_of = np.full(len(place), -1, np.int16), np.zeros(len(place), np.int32)
    smallest = np.full(len(place), np.inf)
    for number, name in enumerate(room.instances, 1):
        mine = place[room.world.instance[owner] == number]
        if name not in CLASSES or not len(mine):
            continue
        low, high = mine.min(axis=0) - 0.0213, mine.max(axis=0) + 0.0213
        size, centre = high - low, (low + high) / 2
        sizes.append(size)
        inside = ((place >= low) & (place <= high)).all(axis=1) & (float(np.prod(size)) < smallest)
        smallest[inside] = np.prod(size)
        label[inside] = taxonomy("arkitscenes17").classes.index(CLASSES[name])
        box_of[inside] = len(sizes)
        turned = world_from_room[:3, :3].T  # rows: the room's axes in the world
        aligned = {
            "centroid": (world_from_room[:3, :3] @ centre + world_from_room[:3, 3]).tolist(),
            "axesLengths": size.tolist(), "normalizedAxes": turned.ravel().tolist(),
        }  # fmt: skip
        other = {"centroid": [1e3, -2e3, 30.0], "axesLengths": (100 * size).tolist(), "normalizedAxes": [0.0] * 9}
        boxes.append({
            "uid": f"{capture.video}-{number:04x}", "label": CLASSES[name].replace("_", " "), "modelId": "",
            "children": [], "objectId": 7, "segments": {"obb": other, "obbAligned": aligned}, "hierarchy": [],
            "isInGroup": False, "labelType": "3d_box", "attributes": {},
        })  # fmt: skip
    return boxes, {"label": label, "box": box_of}


def _bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _png(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
