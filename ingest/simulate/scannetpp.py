"""Writes simulated rooms the way ScanNet++ ships its scenes: mesh, segments, objects, photographs, a phone's film.

    data/<scene>/{scans,dslr,iphone}/...  splits/*.txt  metadata/semantic_benchmark/{map_benchmark.csv,top100*.txt}

Scenes take turns: train (depth.bin as one stream, an H.264 film), val (no phone, segments in another order), test (no
annotation, held-out photographs are not there, depth.bin of records, an H.265 film). Walls are labelled through the
pictures on them, so that those vertices are of two objects. Of the photographs one is blurred and marked bad, one is
held out, one is painted over to a tenth; of the film one frame is posed 0.8 m off, one is painted over. The truth has
the class and object of each vertex, the distance along each ray of a photograph, depth along z of each frame, and what
each photograph sees.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from plyfile import PlyData, PlyElement

from brickyard.ingest.simulate import scannetpp_files as files
from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.scannet import CAMERA_AXES, _vertex_colors, _viewpoints
from brickyard.ingest.simulate.sensors import Camera, render
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.truth import write_arrays, write_json
from brickyard.shards.scene import Float64
from brickyard.shards.taxonomy import taxonomy

Rng = np.random.Generator
SPLITS = ("nvs_sem_train", "nvs_sem_val", "sem_test")
LABELS = {
    "couch": ("couch", "sofa"), "desk": ("desk", "table"), "dresser": ("dresser", "cabinet"),
    "counter": ("kitchen worktop", "kitchen counter"), "lamp": ("standing lamp", "table lamp"),
    "bathtub": ("bathtub", "None"), "chair": ("chair ", ""),
}  # fmt: skip
"""Label of the room's models -> raw label, and what the map says of it; all others are called as they are."""
DEPTH_SIZE = (256, 192)
FRAME_SIZE = (1920, 1440)
BAD, HELD_OUT, PAINTED, MISPOSED = 1, 2, 3, 3


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A scene: its room, moved into the frame of its mesh, and where it goes."""

    room: Room
    folder: Path
    truth: Path
    split: str
    rng: Rng


def write_scannetpp(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.scannetpp_scenes` scenes below `out`; returns counts."""
    counts = {"scenes": 0, "points": 0, "photographs": 0, "frames": 0}
    lists: dict[str, list[str]] = {name: [] for name in SPLITS}
    for number in range(config.scannetpp_scenes):
        rng = np.random.default_rng((seed, 11, number))
        scene, split = f"{0x5C4E_0000_00 + 7919 * number:010x}", SPLITS[number % 3]
        lists[split].append(scene)
        room = build_room(rng, list(ROOMS)[number % len(ROOMS)], spacing=config.scannetpp_spacing)
        shift = np.array([-rng.uniform(1, 3), -rng.uniform(1, 3), rng.normal(0, 0.02)], np.float32)
        world = replace(room.world, vertices=room.world.vertices + shift)
        place = _Place(
            room=replace(room, world=world), folder=out / "data" / scene, truth=truth / scene, split=split, rng=rng
        )
        counts["points"] += _write_scans(place)
        counts["photographs"] += _write_photographs(place, config, shift)
        if split != "nvs_sem_val":
            counts["frames"] += _write_film(place, config, shift)
        counts["scenes"] += 1
        tick(number + 1, config.scannetpp_scenes)
    for name, scenes in lists.items():
        _text(out / "splits" / f"{name}.txt", "".join(f"{scene}\n" for scene in scenes))
    _write_benchmark(out / "metadata/semantic_benchmark")
    return counts


def _text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_benchmark(folder: Path) -> None:
    for name, known in (("top100.txt", "scannetpp100"), ("top100_instance.txt", "scannetpp84")):
        _text(folder / name, "".join(f"{label}\n" for label in taxonomy(known).classes))
    names = sorted(taxonomy("scannetpp100").classes)
    rows = [(raw.strip(), target) for raw, target in LABELS.values()] + [("split", "None"), ("object", "None")]
    rows += [(name, "") for name in names if name not in dict(rows)]
    lines = ["class,count,semantic_map_to,instance_map_to", *(f"{raw},{7},{to},{to}" for raw, to in rows)]
    _text(folder / "map_benchmark.csv", "".join(f"{line}\n" for line in lines))


def _write_scans(place: _Place) -> int:
    """Mesh and annotation; returns the vertices."""
    world, folder = place.room.world, place.folder / "scans"
    folder.mkdir(parents=True, exist_ok=True)
    owner = np.zeros(len(world.vertices), np.int64)
    owner[world.faces.ravel()] = np.repeat(np.arange(len(world.faces)), 3)
    instance = world.instance[owner]
    color = _vertex_colors(world)
    vertex = np.empty(
        len(color), [(axis, "<f4") for axis in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    )
    for k, axis in enumerate("xyz"):
        vertex[axis] = world.vertices[:, k]
    for k, name in enumerate(("red", "green", "blue")):
        vertex[name] = color[:, k]
    face = np.empty(len(world.faces), [("vertex_indices", "<i4", (3,))])
    face["vertex_indices"] = world.faces
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    PlyData(elements, byte_order="<").write(str(folder / "mesh_aligned_0.05.ply"))
    names = [LABELS.get(label, (label, ""))[1] or label for label in place.room.instances]
    known = taxonomy("scannetpp100").classes
    ids = np.array([-1, *(known.index(name) if name in known else -1 for name in names)], np.int16)
    label: NDArray[np.int16] = ids[instance]
    write_arrays(
        place.truth, {"label": label, "object": np.where(label >= 0, instance, 0).astype(np.int32), "color": color}
    )
    if place.split != "sem_test":
        segments = np.arange(len(instance))
        segments = segments[::-1] if place.split == "nvs_sem_val" else segments
        write_json(folder / "segments.json", {"sceneId:": "scannetpp", "segIndices": segments.tolist()})
        write_json(folder / "segments_anno.json", _annotation(place.room, segments, instance))
    return len(instance)


def _annotation(room: Room, segments: NDArray[np.int64], instance: NDArray[np.int32]) -> dict[str, object]:
    """The objects, walls first: they reach through what hangs on them. Another one, of no class, has everything."""
    groups = []
    hangs = [k + 1 for k, label in enumerate(room.instances) if label in ("picture", "window", "whiteboard")]
    order = sorted(range(len(room.instances)), key=lambda k: room.instances[k] != "wall")
    for place, k in enumerate([*order, -1]):
        label = LABELS.get(room.instances[k], (room.instances[k], ""))[0] if k >= 0 else "object"
        members = (instance == k + 1) if k >= 0 else instance > 0
        if place == 0:
            members = members | np.isin(instance, hangs)
        vertices = room.world.vertices[members].astype(np.float64)
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        box = {
            "centroid": ((low + high) / 2).tolist(), "axesLengths": (high - low).tolist(),
            "normalizedAxes": np.eye(3).ravel().tolist(), "min": low.tolist(), "max": high.tolist(),
        }  # fmt: skip
        entry = {"id": place + 1, "objectId": k + 1 if k >= 0 else len(room.instances) + 1, "label": label}
        groups.append({**entry, "segments": segments[members].tolist(), "partId": 1, "index": place, "obb": box})
    return {"sceneId": "scannetpp.2023-01-01", "appId": "stk.v1", "annId": 1, "segGroups": groups}


def _write_photographs(place: _Place, config: SimulationConfig, shift: NDArray[np.float32]) -> int:
    world, rng, folder, size = place.room.world, place.rng, place.folder / "dslr", config.scannetpp_size
    lens = files.fisheye(size)
    flat = Camera(width=size[0], height=size[1], intrinsics=_flat(size))
    poses: dict[str, Float64] = {}
    frames: list[dict[str, object]] = []
    arrays: dict[str, NDArray[Any]] = {}
    room = replace(place.room, world=replace(world, vertices=world.vertices - shift))
    for number, view in enumerate(_viewpoints(room, config.scannetpp_photographs, rng)):
        view = view.copy()
        view[:3, 3] += shift
        stem = f"DSC{number + 1:05d}"
        poses[f"{stem}.JPG"] = view
        picture = files.photograph(world, lens, view, rng)
        mask = np.full(picture.color.shape[:2], 255, np.uint8)
        if number == PAINTED:
            mask[: size[1] // 10] = 0
        elif number == 0:
            mask[:4, :4] = 0
        pixels = {
            "resized_images": picture.color,
            "resized_undistorted_images": render(world, flat, view, 0.0, rng).color,
        }
        hidden = place.split == "sem_test" and number == HELD_OUT
        for name, values in pixels.items():
            values = values * (mask[..., None] > 0).astype(np.uint8) if name == "resized_images" else values
            if number == BAD:
                values = np.asarray(Image.fromarray(values).resize((9, 6)).resize(size))
            if not hidden:
                _bytes(
                    folder / name / f"{stem}.JPG",
                    simplejpeg.encode_jpeg(np.ascontiguousarray(values), 92, "RGB", "420"),
                )
        _bytes(folder / "resized_anon_masks" / f"{stem}.png", _png(mask))
        _bytes(folder / "resized_undistorted_masks" / f"{stem}.png", _png(np.full_like(mask, 255)))
        entry = {"file_path": f"{stem}.JPG", "mask_path": f"{stem}.png", "is_bad": number == BAD}
        frames.append({**entry, "transform_matrix": files.nerfstudio_matrix(view)})
        arrays |= {f"{stem}_distance": picture.depth.astype(np.float16), f"{stem}_pose": view}
        arrays[f"{stem}_seen"] = files.seen(world, view[:3, 3], world.vertices.astype(np.float64))
    k = (lens.fx, lens.fy, lens.cx, lens.cy)
    _text(folder / "colmap/cameras.txt", files.colmap_camera("OPENCV_FISHEYE", size, (*k, *lens.k)))
    _text(folder / "colmap/images.txt", files.colmap_images(poses, rng))
    whole = {"w": size[0], "h": size[1], "fl_x": k[0], "fl_y": k[1], "cx": k[2], "cy": k[3]}
    held_out = [frames.pop(HELD_OUT)] if len(frames) > HELD_OUT else []
    kept = {"frames": frames[::-1], "test_frames": held_out}
    bent = {"camera_model": "OPENCV_FISHEYE", **{f"k{n + 1}": value for n, value in enumerate(lens.k)}}
    write_json(folder / "nerfstudio/transforms.json", {**whole, **bent, **kept})
    straight = {"camera_model": "PINHOLE", "fl_x": flat.intrinsics[0, 0], "fl_y": flat.intrinsics[1, 1]}
    straight |= {"cx": size[0] / 2, "cy": size[1] / 2}
    write_json(folder / "nerfstudio/transforms_undistorted.json", {**whole, **straight, **kept})
    names = {"train": [frame["file_path"] for frame in frames], "test": [frame["file_path"] for frame in held_out]}
    write_json(folder / "train_test_lists.json", {**names, "has_masks": True})
    write_arrays(place.truth, arrays)
    return len(poses)


def _flat(size: tuple[int, int]) -> Float64:
    """The pinhole of the undistorted photographs: their middle is the middle of the lens."""
    focal = 0.36 * size[0]
    return np.array([[focal, 0, size[0] / 2 - 0.5], [0, focal, size[1] / 2 - 0.5], [0, 0, 1]])


def _write_film(place: _Place, config: SimulationConfig, shift: NDArray[np.float32]) -> int:
    world, rng, folder = place.room.world, place.rng, place.folder / "iphone"
    width, depth, _ = place.room.size
    phase, turn = rng.uniform(0, 2 * np.pi), np.radians(200 / config.scannetpp_frames)
    phone_from_world = pose(0.3, -1.2, 0.7, 0.8)
    table, poses, colors, depths, masks = {}, {}, [], [], []
    for number in range(config.scannetpp_frames):
        angle = phase + turn * number
        x, y = width * (0.5 + 0.28 * np.cos(angle)) + shift[0], depth * (0.5 + 0.28 * np.sin(angle)) + shift[1]
        view = pose(x, y, 1.6 + shift[2], angle + np.pi, 0.25) @ CAMERA_AXES
        focal = 1440 * (1 + 0.01 * np.sin(number))
        k = np.array([[focal, 0, 957.3], [0, focal, 721.4], [0, 0, 1]])
        picture = render(world, _camera(k, config.scannetpp_frame_size), view, 0.0, rng)
        measured = render(world, _camera(k, DEPTH_SIZE), view, 0.0, rng).depth
        lost = rng.random(measured.shape) < 0.01
        depths.append(np.where(lost | ~np.isfinite(measured), 0, measured + rng.normal(0, 0.004, lost.shape)))
        colors.append(picture.color)
        masks.append(np.full_like(picture.color, 0 if number == 1 else 255))
        poses[f"frame_{number:06d}"] = view
        shown = pose(0.8, 0, 0) @ view if number == MISPOSED else view
        table[f"frame_{number:06d}"] = {
            "timestamp": 1000.0 + number / 60, "pose": (phone_from_world @ view).tolist(),
            "aligned_pose": shown.tolist(), "intrinsic": k.tolist(), "imu": {"acceleration": [0.0, -1.0, 0.0]},
        }  # fmt: skip
    write_json(folder / "pose_intrinsic_imu.json", table)
    codec = "libx265" if place.split == "sem_test" else "libx264"
    metres = np.array(depths, np.float32)
    packed = files.depth_records(metres) if place.split == "sem_test" else files.depth_stream(metres)
    _bytes(folder / "depth.bin", packed)
    _bytes(folder / "rgb.mkv", files.film(colors, codec))
    _bytes(folder / "rgb_mask.mkv", files.film(masks, codec))
    some = {f"video/{name}.jpg": view for name, view in list(poses.items())[::4]}
    _text(
        folder / "colmap/cameras.txt",
        files.colmap_camera("OPENCV", FRAME_SIZE, (1440, 1440, 957.8, 721.9, 0, 0, 0, 0)),
    )
    _text(folder / "colmap/images.txt", files.colmap_images(some, rng))
    truth = {"frame_poses": np.array(list(poses.values())), "frame_depth": metres.astype(np.float16)}
    write_arrays(place.truth, {**truth, "frames": np.array(colors)})
    return len(colors)


def _camera(k: Float64, size: tuple[int, int]) -> Camera:
    """A camera of 1920 x 1440 pixels at another size, by the corners of its pixels."""
    x, y = size[0] / FRAME_SIZE[0], size[1] / FRAME_SIZE[1]
    centre = (k[0, 2] + 0.5) * x - 0.5, (k[1, 2] + 0.5) * y - 0.5
    intrinsics = np.array([[k[0, 0] * x, 0, centre[0]], [0, k[1, 1] * y, centre[1]], [0, 0, 1]])
    return Camera(width=size[0], height=size[1], intrinsics=intrinsics)


def _bytes(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _png(values: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()
