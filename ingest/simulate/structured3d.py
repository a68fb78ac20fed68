"""Writes simulated houses the way Structured3D ships its own: zips of panoramas, perspective pictures and annotations.

    Structured3D_panorama_NN.zip, Structured3D_perspective_{full,empty}_NN.zip        houses 200 NN to 200 NN + 199
    Structured3D_annotation_3d.zip, Structured3D_bbox.zip (boxes, and the instance images of both kinds)

A house is some rooms side by side on a floor at z = 0, turned as a whole; its world is in millimetres. Rooms have three
states of furniture and three of light. The third house has the defect of the release: its perspective pictures are in
the zip of the number before as well as in its own. With `structured3d_packed=False` the same files lie in folders.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.scannet import CAMERA_AXES, NYU40
from brickyard.ingest.simulate.sensors import Camera, Picture, look, render
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.truth import raw_labels, write_arrays
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float64

Rng = np.random.Generator
HOUSES = (12, 3007, 1850, 3261, 213, 3499, 2999)
"""Of all splits, the third of those whose perspective pictures were published twice."""
TYPES = ("bedroom", "living room", "study", "kitchen", "bathroom", "undefined")
SHELL = ("wall", "floor", "ceiling", "door", "window")
LARGE = (*SHELL, "bed", "couch", "table", "desk", "cabinet", "kitchen cabinet", "bookshelf", "dresser", "refrigerator")
HALF_ANGLE = 0.698132
"""Half the horizontal angle of view of the perspective pictures, radians."""
LIGHTS = {"raw": (1.0, 1.0, 1.0), "cold": (0.82, 0.95, 1.15), "warm": (1.12, 0.97, 0.78)}
PALETTE = np.random.default_rng(41).integers(30, 255, (256, 3)).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A room of a house: its number, where it stands (metres), and the number before its first instance's."""

    room: Room
    number: int
    kind: str
    world_from_room: Float64
    first: int


def write_structured3d(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.structured3d_houses` houses below `out`; returns counts."""
    counts = Counter(houses=0, rooms=0, pictures=0)
    volumes: dict[str, dict[str, bytes]] = {}
    for index in range(config.structured3d_houses):
        number = HOUSES[index % len(HOUSES)] + index // len(HOUSES)
        house = f"scene_{number:05d}"
        rng = np.random.default_rng((seed, 9, index))
        places = _build_house(rng, config.structured3d_rooms, index)
        annotation, boxes = _annotation(places), _boxes(places)
        volumes.setdefault("annotation_3d", {})[f"{house}/annotation_3d.json"] = _json(annotation)
        volumes.setdefault("bbox", {})[f"{house}/bbox_3d.json"] = _json(boxes)
        for place in places:
            files = _draw(place, truth / house / f"room_{place.number}", config, rng)
            counts += Counter(rooms=1, pictures=sum("rgb_" in name for name in files))
            for name, data in files.items():
                kind = _volume(name, number // 200)
                volumes.setdefault(kind, {})[f"{house}/2D_rendering/{place.number}/{name}"] = data
        volumes[f"panorama_{number // 200:02d}"][f"{house}/annotation_3d.json"] = _json(annotation)
        counts += Counter(houses=1)
        tick(index + 1, config.structured3d_houses)
    if "perspective_full_09" in volumes:  # the defect of the release
        volumes["perspective_full_08"] = volumes["perspective_full_09"]
    for kind, files in volumes.items():
        _pack(out, kind, files) if config.structured3d_packed else _unpack(out, files)
    return dict(counts)


def _volume(name: str, number: int) -> str:
    if name.endswith("instance.png"):
        return "bbox"
    if name.startswith("panorama"):
        return f"panorama_{number:02d}"
    return f"perspective_{name.split('/')[1]}_{number:02d}"


def _pack(out: Path, kind: str, files: dict[str, bytes]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out / f"Structured3D_{kind}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        folders = {"Structured3D/" + name.rpartition("/")[0] + "/" for name in files}
        for name in sorted([*folders, *(f"Structured3D/{name}" for name in files)]):
            entry = zipfile.ZipInfo(name)  # of 1980, so that equal worlds are equal bytes
            entry.compress_type = zipfile.ZIP_STORED if name.endswith("/") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, b"" if name.endswith("/") else files[name.removeprefix("Structured3D/")])


def _unpack(out: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = out / "Structured3D" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


# A house


def _build_house(rng: Rng, count: int, index: int) -> list[_Place]:
    """Rooms in a row, walls 15 cm thick, the whole house turned."""
    kinds = list(ROOMS)
    house = pose(rng.uniform(-6, 6), rng.uniform(-6, 6), 0.0, float(rng.integers(4)) * np.pi / 2 + rng.normal(0, 0.1))
    places: list[_Place] = []
    x, first = 0.0, 1
    for k in range(count):
        room = build_room(rng, kinds[(index + k) % len(kinds)], spacing=0.3)
        number = int(rng.integers(100, 1_000_000))
        places.append(
            _Place(
                room=room,
                number=number,
                kind=TYPES[(index + k) % len(TYPES)],
                world_from_room=house @ pose(x),
                first=first,
            )
        )
        x, first = x + room.size[0] + 0.15, first + len(room.instances)
    return sorted(places, key=lambda place: place.number)


def _only(world: World, labels: tuple[str, ...]) -> World:
    """The world without the triangles of other labels."""
    kept = np.isin(np.array(world.labels)[world.label], labels)
    columns = ("faces", "texture", "label", "instance", "material", "tint", "owner")
    return replace(world, **{name: getattr(world, name)[kept] for name in columns})


def _corners(place: _Place) -> Float64:
    """(8, 3), millimetres in the house's world: the floor's corners, counter-clockwise, then those of the ceiling."""
    width, depth, height = place.room.size
    floor = np.array([(0, 0, 0), (width, 0, 0), (width, depth, 0), (0, depth, 0)])
    corners = np.concatenate([floor, floor + np.array([0, 0, height])])
    return np.asarray((corners @ place.world_from_room[:3, :3].T + place.world_from_room[:3, 3]) * 1000)


def _annotation(places: list[_Place]) -> dict[str, Any]:
    """Junctions, lines and planes of the shells; six planes a room."""
    edges = (
        [(k, (k + 1) % 4) for k in range(4)]
        + [(4 + k, 4 + (k + 1) % 4) for k in range(4)]
        + [(k, k + 4) for k in range(4)]
    )
    sides = [("floor", (0, 1, 2, 3)), ("ceiling", (4, 5, 6, 7))]
    sides += [("wall", (k, (k + 1) % 4, 4 + (k + 1) % 4, 4 + k)) for k in range(4)]
    junctions, lines, planes, semantics = [], [], [], []
    plane_line = np.zeros((6 * len(places), 12 * len(places)), int)
    line_junction = np.zeros((12 * len(places), 8 * len(places)), int)
    for r, place in enumerate(places):
        corners, centre = _corners(place), _corners(place).mean(axis=0)
        junctions += [{"ID": 8 * r + k, "coordinate": corner.tolist()} for k, corner in enumerate(corners)]
        for k, (a, b) in enumerate(edges):
            along = (corners[b] - corners[a]) / np.linalg.norm(corners[b] - corners[a])
            lines.append({"ID": 12 * r + k, "point": corners[a].tolist(), "direction": along.tolist()})
            line_junction[12 * r + k, [8 * r + a, 8 * r + b]] = 1
        for k, (kind, around) in enumerate(sides):
            normal = np.cross(corners[around[1]] - corners[around[0]], corners[around[3]] - corners[around[0]])
            normal /= np.linalg.norm(normal) * np.sign(normal @ (centre - corners[around[0]]))
            offset = float(-normal @ corners[around[0]])
            planes.append({"ID": 6 * r + k, "type": kind, "normal": normal.tolist(), "offset": offset})
            plane_line[6 * r + k, [12 * r + n for n, edge in enumerate(edges) if set(edge) <= set(around)]] = 1
        semantics.append({"ID": place.number, "type": place.kind, "planeID": list(range(6 * r, 6 * r + 6))})
    return {
        "junctions": junctions, "lines": lines, "planes": planes, "semantics": semantics,
        "planeLineMatrix": plane_line.tolist(), "lineJunctionMatrix": line_junction.tolist(),
        "cuboids": [], "manhattan": [],
    }  # fmt: skip


def _boxes(places: list[_Place]) -> list[dict[str, Any]]:
    """A box along the room's walls around each object, walls and floors aside."""
    boxes = []
    for place in places:
        world = place.room.world
        for k, label in enumerate(place.room.instances, 1):
            if label in SHELL[:3]:
                continue
            vertices = world.vertices[world.faces[world.instance == k].ravel()]
            low, high = vertices.min(axis=0), vertices.max(axis=0)
            middle = place.world_from_room[:3, :3] @ ((low + high) / 2) + place.world_from_room[:3, 3]
            boxes.append({
                "ID": place.first + k - 1, "basis": place.world_from_room[:3, :3].T.tolist(),
                "coeffs": ((high - low) / 2 * 1000).tolist(), "centroid": (middle * 1000).tolist(),
            })  # fmt: skip
    return boxes


# Its pictures


def _draw(place: _Place, truth: Path, config: SimulationConfig, rng: Rng) -> dict[str, bytes]:
    """All files of a room below its folder; the truth beside."""
    spot = _stand(place.room, rng)
    eye = np.round((place.world_from_room[:3, :3] @ spot + place.world_from_room[:3, 3]) * 1000, 3)
    files = {"panorama/camera_xyz.txt": (" ".join(f"{value:.3f}" for value in eye)).encode()}
    width, height = config.structured3d_panorama_size
    rays = _panorama_rays(width, height)
    corners = _layout(_corners(place) - eye, width, height)
    files["panorama/layout.txt"] = "".join(f"{x} {y}\n" for x, y in corners).encode()
    worlds = {
        "full": place.room.world, "simple": _only(place.room.world, LARGE), "empty": _only(place.room.world, SHELL),
    }  # fmt: skip
    room_rays = np.ascontiguousarray(rays @ place.world_from_room[:3, :3], np.float32)
    arrays: dict[str, NDArray[Any]] = {"panorama_eye": eye / 1000}
    for state, world in worlds.items():
        picture = look(world, spot, room_rays, (height, width), time=0.0, focal=width / (2 * np.pi), rng=rng)
        for light in LIGHTS:
            files[f"panorama/{state}/rgb_{light}light.png"] = _rgba(picture, light)
        files |= _images(f"panorama/{state}", place, world, picture, full=state == "full")
        arrays |= _truth(f"panorama_{state}", place, world, picture)
    camera = _camera(config)
    for k in range(config.structured3d_views):
        view = _look_around(place.room, spot, rng)
        eye, pose_text = _camera_pose(place.world_from_room @ view, camera)
        arrays[f"perspective_{k}_pose"] = place.world_from_room @ view
        for state in ("full", "empty"):
            picture = render(worlds[state], camera, view, 0.0, rng)
            files[f"perspective/{state}/{k}/camera_pose.txt"] = pose_text
            files[f"perspective/{state}/{k}/layout.json"] = _json({"junctions": [], "planes": []})
            files[f"perspective/{state}/{k}/rgb_rawlight.png"] = _rgba(picture, "raw")
            files |= _images(f"perspective/{state}/{k}", place, worlds[state], picture, full=state == "full")
            arrays |= _truth(f"perspective_{state}_{k}", place, worlds[state], picture)
    write_arrays(truth, arrays)
    return files


def _stand(room: Room, rng: Rng) -> Float64:
    """Where a camera stands: eye height, nothing within 40 cm; float64 (3,), room coordinates."""
    snapshot, (width, depth, _) = room.world.at(0), room.size
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rays = np.stack([np.cos(turn), np.sin(turn), np.zeros(24)], 1).astype(np.float32)
    spot = np.zeros(3)
    for _ in range(40):
        spot = np.array([rng.uniform(0.25, 0.75) * width, rng.uniform(0.25, 0.75) * depth, rng.uniform(1.3, 1.6)])
        if snapshot.cast(np.broadcast_to(spot, rays.shape).astype(np.float32), rays).distance.min() > 0.4:
            break
    return spot


def _panorama_rays(width: int, height: int) -> Float64:
    """Unit vectors (height * width, 3) in the house's world: +y in the middle, +x to the right of it, +z above."""
    longitude = (np.arange(width) + 0.5 - width / 2) * (2 * np.pi / width)
    colatitude = (np.arange(height) + 0.5) * (np.pi / height)
    a, c = np.meshgrid(longitude, colatitude)
    rays: Float64 = np.stack([np.sin(c) * np.sin(a), np.sin(c) * np.cos(a), np.cos(c)], axis=-1).reshape(-1, 3)
    return rays


def _layout(corners: Float64, width: int, height: int) -> list[tuple[int, int]]:
    """Ceiling and floor pixel of each vertical edge, from left to right; `corners` (8, 3) relative to the camera."""
    entries = []
    for floor, ceiling in zip(corners[:4], corners[4:], strict=True):
        column = width / 2 + np.arctan2(floor[0], floor[1]) * width / (2 * np.pi)
        rows = [height * np.arccos(p[2] / np.linalg.norm(p)) / np.pi for p in (ceiling, floor)]
        entries.append((int(column), [int(row) for row in rows]))
    return [(column, row) for column, rows in sorted(entries) for row in rows]


def _camera(config: SimulationConfig) -> Camera:
    width, height = config.structured3d_image_size
    focal = width / 2 / np.tan(HALF_ANGLE)
    intrinsics = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])
    return Camera(width=width, height=height, intrinsics=intrinsics)


def _look_around(room: Room, spot: Float64, rng: Rng) -> Float64:
    """room_from_camera (OpenCV axes): near the panorama's place, looking across the middle of the room."""
    width, depth, _ = room.size
    x, y = spot[0] + rng.uniform(-0.2, 0.2), spot[1] + rng.uniform(-0.2, 0.2)
    yaw = np.arctan2(depth / 2 - y, width / 2 - x) + rng.uniform(-2.5, 2.5)
    return np.asarray(pose(x, y, spot[2], yaw, rng.uniform(0.0, 0.3)) @ CAMERA_AXES)


def _camera_pose(world_from_camera: Float64, camera: Camera) -> tuple[Float64, bytes]:
    eye, forward, up = world_from_camera[:3, 3] * 1000, world_from_camera[:3, 2], -world_from_camera[:3, 1]
    half = np.arctan([camera.width / 2 / camera.intrinsics[0, 0], camera.height / 2 / camera.intrinsics[1, 1]])
    values = [*(f"{v:.4f}" for v in eye), *(f"{v:.8f}" for v in (*forward, *up)), *(f"{v:.6f}" for v in half), "1"]
    return eye, " ".join(values).encode()


def _rgba(picture: Picture, light: str) -> bytes:
    color = np.clip(picture.color * np.array(LIGHTS[light]), 0, 255).astype(np.uint8)
    return _png(Image.fromarray(np.dstack([color, np.full(color.shape[:2], 255, np.uint8)])))


def _images(folder: str, place: _Place, world: World, picture: Picture, *, full: bool) -> dict[str, bytes]:
    """Depth, classes (coloured by a palette), instances of the full room, normals, albedo."""
    miss = picture.face == MISS
    millimetres = np.round(np.where(miss, 0, picture.depth).astype(np.float64) * 1000)
    semantic = Image.fromarray(np.where(miss, 0, raw_labels(world, NYU40)[picture.face]).astype(np.uint8), "P")
    semantic.putpalette(PALETTE.tobytes())
    normal = world.at(0).normal[picture.face] @ place.world_from_room[:3, :3].T
    coded = np.where(miss[..., None], 128, np.clip(128 * (1 + normal), 0, 255)).astype(np.uint8)
    files = {
        "depth": _png(Image.fromarray(np.minimum(millimetres, 65534).astype(np.uint16))),
        "semantic": _png(semantic),
    }
    files |= {"normal": _png(Image.fromarray(coded)), "albedo": _png(Image.fromarray(picture.color))}
    if full:
        files["instance"] = _png(Image.fromarray(_instances(place, world, picture).astype(np.uint16)))
    return {f"{folder}/{name}.png": data for name, data in files.items()}


def _instances(place: _Place, world: World, picture: Picture) -> NDArray[np.int64]:
    """Numbers of the objects, 65535 for the shell and for nothing."""
    background = np.isin(np.array(world.labels)[world.label], SHELL[:3])[picture.face] | (picture.face == MISS)
    return np.where(background, 65535, world.instance[picture.face].astype(np.int64) + place.first - 1)


def _truth(name: str, place: _Place, world: World, picture: Picture) -> dict[str, NDArray[Any]]:
    """Of a picture: distance or depth, class, the true normal in the house's world."""
    miss = picture.face == MISS
    label = np.where(miss, 0, raw_labels(world, NYU40)[picture.face])
    normal = world.at(0).normal[picture.face] @ place.world_from_room[:3, :3].T
    return {
        f"{name}_depth": picture.depth.astype(np.float32), f"{name}_label": label.astype(np.uint8),
        f"{name}_instance": _instances(place, world, picture).astype(np.int32),
        f"{name}_normal": normal.astype(np.float16),
    }  # fmt: skip


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
