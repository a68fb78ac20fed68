"""Writes simulated rooms the way ScanNet ships its scans: meshes, segments, instances and a `.sens` stream of frames.

The scan's world has an arbitrary yaw and origin; `axisAlignment` in the text file leads back to the walls. Depth has
its own size and intrinsics. In every third scan one frame has lost its pose (all entries -inf), as happens. Every frame
has its label and instance image, in zips; the truth of the latter is `<frame>_instance`, uint8 (H, W).
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.sensors import Camera, Picture, render, visible
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.truth import picture_truth, raw_labels, write_arrays, write_json
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float64

Rng = np.random.Generator

NYU40 = {
    "wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "couch": 6, "table": 7, "door": 8, "window": 9,
    "bookshelf": 10, "picture": 11, "counter": 12, "desk": 14, "curtain": 16, "dresser": 17, "pillow": 18,
    "ceiling": 22,
    "refrigerator": 24, "box": 29, "whiteboard": 30, "toilet": 33, "sink": 34, "lamp": 35, "bathtub": 36,
    "kitchen cabinet": 3, "monitor": 40,
}  # fmt: skip
NYU40_NAMES = {"couch": "sofa", "kitchen cabinet": "cabinet", "monitor": "otherprop"}
RAW_IDS = {
    "wall": 1, "chair": 2, "floor": 3, "table": 4, "door": 5, "couch": 6, "cabinet": 7, "desk": 9, "bed": 11,
    "pillow": 13,
    "sink": 14, "picture": 15, "window": 16, "toilet": 17, "bookshelf": 18, "monitor": 19, "curtain": 21, "box": 26,
    "refrigerator": 27, "lamp": 28, "kitchen cabinet": 29, "counter": 35, "dresser": 36, "ceiling": 41, "bathtub": 42,
    "whiteboard": 52,
}  # fmt: skip
TSV_COLUMNS = (
    "id", "raw_category", "category", "count", "nyu40id", "eigen13id", "nyuClass", "nyu40class", "eigen13class",
    "ModelNet40", "ModelNet10", "ShapeNetCore55", "synsetoffset", "wnsynsetid", "wnsynsetkey", "mpcat40",
    "mpcat40index",
)  # fmt: skip
CAMERA_AXES: Float64 = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
"""Body (x forward, y left, z up) from camera (OpenCV axes)."""


def write_scannet(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.scannet_rooms` scans below `out`; returns counts."""
    kinds = list(ROOMS)
    counts = {"scans": 0, "frames": 0, "points": 0}
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(config.scannet_rooms):
        rng = np.random.default_rng((seed, 1, number))
        scan = f"scene{9000 + number:04d}_00"
        splits["val" if number % 3 == 1 else "train"].append(scan)
        room = build_room(rng, kinds[number % len(kinds)], spacing=config.scannet_spacing)
        points = _write_scan(
            out / "scans" / scan, truth / scan, scan, room, config=config, rng=rng, lost=number % 3 == 0
        )
        counts["scans"] += 1
        counts["frames"] += config.scannet_frames
        counts["points"] += points
        tick(number + 1, config.scannet_rooms)
    (out / "splits").mkdir(parents=True, exist_ok=True)
    for split, scans in splits.items():
        (out / "splits" / f"scannetv2_{split}.txt").write_text("".join(f"{scan}\n" for scan in scans))
    (out / "scannetv2-labels.combined.tsv").write_text(_label_table())
    return counts


def _label_table() -> str:
    rows = ["\t".join(TSV_COLUMNS)]
    for raw, ident in sorted(RAW_IDS.items(), key=lambda item: item[1]):
        cells = dict.fromkeys(TSV_COLUMNS, "")
        name = NYU40_NAMES.get(raw, raw)
        cells |= {"id": str(ident), "raw_category": raw, "category": raw, "count": "1"}
        cells |= {"nyu40id": str(NYU40[raw]), "nyu40class": name, "nyuClass": name}
        rows.append("\t".join(cells[c] for c in TSV_COLUMNS))
    return "\n".join(rows) + "\n"


def _write_scan(
    folder: Path, truth: Path, scan: str, room: Room, *, config: SimulationConfig, rng: Rng, lost: bool
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    world = room.world
    world_from_room = pose(rng.uniform(1, 6), rng.uniform(1, 6), rng.normal(0, 0.05), rng.uniform(-np.pi, np.pi))
    owner = np.zeros(len(world.vertices), np.int64)
    owner[world.faces.ravel()] = np.repeat(np.arange(len(world.faces)), 3)
    label, instance = raw_labels(world, NYU40)[owner], world.instance[owner]
    vertices = (world.vertices @ world_from_room[:3, :3].T + world_from_room[:3, 3]).astype(np.float32)
    color = _vertex_colors(world)
    (folder / f"{scan}_vh_clean_2.ply").write_bytes(_ply(vertices, color, world.faces))
    palette = np.random.default_rng(40).integers(40, 255, (256, 3)).astype(np.uint8)
    (folder / f"{scan}_vh_clean_2.labels.ply").write_bytes(_ply(vertices, palette[label], world.faces, label))
    segments = _segments(world, instance)
    write_json(
        folder / f"{scan}_vh_clean_2.0.010000.segs.json",
        {"params": {"kThresh": "0.01", "segMinVerts": "20"}, "sceneId": scan, "segIndices": segments.tolist()},
    )
    write_json(folder / f"{scan}.aggregation.json", _aggregation(scan, room, segments, instance))
    views = _viewpoints(room, config.scannet_frames, rng)
    color_camera, depth_camera = _cameras(config)
    header = _sens_header(color_camera, depth_camera, len(views))
    arrays: dict[str, NDArray[np.generic]] = {"label": label, "instance": instance}
    frames, pictures = [], []
    for index, view in enumerate(views):
        picture = render(world, color_camera, view, 0.0, rng)
        near = render(world, depth_camera, view, 0.0, rng)
        shown = np.full((4, 4), -np.inf) if lost and index == 2 else world_from_room @ view
        frames.append(_sens_frame(shown, index, picture.color, near.depth, rng))
        pictures.append(picture)
        name = f"frame-{index:06d}"
        arrays[f"{name}_label"], arrays[f"{name}_depth"] = picture_truth(picture, raw_labels(world, NYU40))
        arrays[f"visible_{name}"] = visible(
            world, color_camera, view, 0.0, world.vertices.astype(np.float64), near=0.1, slack=0.008
        )
    (folder / f"{scan}.sens").write_bytes(header + b"".join(frames) + struct.pack("<Q", 0))
    (folder / f"{scan}.txt").write_text(_text(room, world_from_room, color_camera, depth_camera, len(views)))
    arrays |= _write_label_images(folder, scan, world, pictures)
    write_arrays(truth, arrays)
    return len(vertices)


def _write_label_images(
    folder: Path, scan: str, world: World, pictures: Sequence[Picture]
) -> dict[str, NDArray[np.generic]]:
    """The zips of label images (16 bits, raw ids) and instance images (8 bits); returns the latter as truth."""
    of_face: dict[str, NDArray[Any]] = {
        "label": raw_labels(world, RAW_IDS).astype(np.uint16),
        "instance": world.instance.astype(np.uint8),
    }
    truth: dict[str, NDArray[np.generic]] = {}
    for kind, values in of_face.items():
        with zipfile.ZipFile(folder / f"{scan}_2d-{kind}-filt.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for index, picture in enumerate(pictures):
                shown = np.where(picture.face == MISS, 0, values[picture.face]).astype(values.dtype)
                entry = zipfile.ZipInfo(f"{kind}-filt/{index}.png")  # of 1980, so that equal worlds are equal bytes
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, _png(shown))
                if kind == "instance":
                    truth[f"frame-{index:06d}_instance"] = shown
    return truth


def _png(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def _vertex_colors(world: World) -> NDArray[np.uint8]:
    """Colour of each vertex: the texture at its place in the last triangle that uses it, under the baked light."""
    flat = np.zeros((len(world.vertices), 2), np.float32)
    flat[world.faces.ravel()] = world.texture.reshape(-1, 2)
    owner = np.zeros(len(world.vertices), np.int64)
    owner[world.faces.ravel()] = np.repeat(np.arange(len(world.faces)), 3)
    color = world.atlas.look_up(world.material[owner], flat, np.full(len(flat), 0.02, np.float32))
    light = np.zeros((len(flat), 3), np.float32)
    uses = np.zeros(len(flat), np.float32)
    for corner in range(3):
        np.add.at(light, world.faces[:, corner], world.tint)
        np.add.at(uses, world.faces[:, corner], 1)
    return np.asarray(np.clip(color * light / np.maximum(uses, 1)[:, None], 0, 255), dtype=np.uint8)


def _ply(
    vertices: NDArray[np.float32],
    color: NDArray[np.uint8],
    faces: NDArray[np.int32],
    label: NDArray[np.uint8] | None = None,
) -> bytes:
    columns = [("xyz", "<f4", (3,)), ("rgb", "u1", (3,)), ("alpha", "u1")]
    rows = np.zeros(len(vertices), columns + ([("label", "<u2")] if label is not None else []))
    rows["xyz"], rows["rgb"], rows["alpha"] = vertices, color, 255
    triangles = np.zeros(len(faces), [("count", "u1"), ("index", "<i4", (3,))])
    triangles["count"], triangles["index"] = 3, faces
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue", "alpha")]
    if label is not None:
        rows["label"] = label
        lines.append("property ushort label")
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(lines).encode() + rows.tobytes() + triangles.tobytes()


def _segments(world: World, instance: NDArray[np.int32]) -> NDArray[np.int64]:
    """Over-segmentation: each flat side of an object cut into cells of about 60 cm, named by a vertex of theirs."""
    cell = np.floor(world.vertices / 0.6).astype(np.int64) - np.floor(world.vertices.min(0) / 0.6).astype(np.int64)
    key = np.column_stack([instance, world.patch, cell])
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first[inverse.ravel()])


def _aggregation(scan: str, room: Room, segments: NDArray[np.int64], instance: NDArray[np.int32]) -> dict[str, object]:
    groups = [
        {"id": k, "objectId": k, "segments": np.unique(segments[instance == k + 1]).tolist(), "label": label}
        for k, label in enumerate(room.instances)
    ]
    files = f"scannet.{scan}_vh_clean_2.0.010000.segs.json"
    return {"sceneId": f"scannet.{scan}", "appId": "brickyard.simulate", "segGroups": groups, "segmentsFile": files}


def _viewpoints(room: Room, count: int, rng: Rng) -> list[Float64]:
    """A walk around the room at eye height, looking across it; room_from_camera with OpenCV axes."""
    width, depth, _ = room.size
    phase, views = rng.uniform(0, 2 * np.pi), []
    snapshot = room.world.at(0)
    for k in range(count):
        for _ in range(12):
            angle = phase + 2 * np.pi * k / count + rng.normal(0, 0.1)
            x, y = width * (0.5 + 0.34 * np.cos(angle)), depth * (0.5 + 0.34 * np.sin(angle))
            target = np.array([width, depth]) * (0.5 + 0.25 * rng.uniform(-1, 1, 2))
            yaw = np.arctan2(target[1] - y, target[0] - x)
            view = pose(x, y, rng.uniform(1.3, 1.7), yaw, rng.uniform(0.15, 0.45), rng.normal(0, 0.03)) @ CAMERA_AXES
            fan = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 7), np.linspace(-0.4, 0.4, 5)), -1).reshape(-1, 2)
            rays = np.column_stack([fan, np.ones(len(fan))]) @ view[:3, :3].T
            origins = np.ascontiguousarray(np.broadcast_to(view[:3, 3], rays.shape), np.float32)
            if snapshot.cast(origins, rays.astype(np.float32)).distance.min() > 0.45:
                break
        views.append(view)
    return views


def _cameras(config: SimulationConfig) -> tuple[Camera, Camera]:
    (w, h), (dw, dh) = config.scannet_color_size, config.scannet_depth_size
    color = np.array([[0.9022 * w, 0, 0.4985 * w], [0, 1.2055 * h, 0.5062 * h], [0, 0, 1]])
    depth = np.array([[0.903 * dw, 0, (dw - 1) / 2], [0, 1.204 * dh, (dh - 1) / 2], [0, 0, 1]])
    rounded = (np.asarray(k, np.float32).astype(np.float64) for k in (color, depth))
    return (
        Camera(width=w, height=h, intrinsics=next(rounded)),
        Camera(width=dw, height=dh, intrinsics=next(rounded)),
    )  # fmt: skip


def _sens_header(color: Camera, depth: Camera, frames: int) -> bytes:
    name = b"StructureSensor"
    matrices = []
    for camera in (color, depth):
        wide = np.eye(4, dtype="<f4")
        wide[:3, :3] = camera.intrinsics
        matrices += [wide, np.eye(4, dtype="<f4")]
    sizes = struct.pack("<iiIIII", 2, 1, color.width, color.height, depth.width, depth.height)
    head = struct.pack("<IQ", 4, len(name)) + name + b"".join(m.tobytes() for m in matrices)
    return head + sizes + struct.pack("<fQ", 1000.0, frames)


def _sens_frame(shown: Float64, index: int, color: NDArray[np.uint8], depth: NDArray[np.float32], rng: Rng) -> bytes:
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(color), quality=90)
    measured = np.isfinite(depth) & (rng.random(depth.shape) > 0.02)
    metres = np.where(measured, depth, 0) * (1 + rng.normal(0, 0.002, depth.shape))
    packed = zlib.compress(np.round(metres * 1000).astype("<u2").tobytes(), 6)
    stamp = 1_000_000 + index * 333_333
    head = np.asarray(shown, "<f4").tobytes() + struct.pack("<QQQQ", stamp, stamp + 5_000, len(jpeg), len(packed))
    return bytes(head + jpeg + packed)


def _text(room: Room, world_from_room: Float64, color: Camera, depth: Camera, frames: int) -> str:
    alignment = " ".join(f"{x:.9f}" for x in np.linalg.inv(world_from_room).ravel())
    values: dict[str, object] = {"axisAlignment": alignment}
    for name, camera in (("color", color), ("depth", depth)):
        k = camera.intrinsics
        values |= {f"{name}Height": camera.height, f"{name}Width": camera.width}
        values |= {f"fx_{name}": k[0, 0], f"fy_{name}": k[1, 1], f"mx_{name}": k[0, 2], f"my_{name}": k[1, 2]}
    values |= {"numColorFrames": frames, "numDepthFrames": frames, "numIMUmeasurements": 0, "sceneType": room.kind}
    return "".join(f"{key} = {json.dumps(v) if isinstance(v, float) else v}\n" for key, v in values.items())
