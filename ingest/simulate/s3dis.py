"""Writes simulated rooms the way S3DIS and 2D-3D-S ship theirs: annotation text, and rendered views of the same rooms.

    Stanford3dDataset_v1.2/Area_N/<type>_<k>/{<type>_<k>.txt, Annotations/<class>_<i>.txt}, Area_N_alignmentAngle.txt
    2D-3D-S/area_N/data/{rgb,depth,pose,semantic}/camera_<id>_<type>_<k>_frame_<i>_domain_<kind>.{png,json}
    2D-3D-S/assets/semantic_labels.json

Points are sampled on what two scanners in the room can see; each room stands turned by its own angle in its area. Half
the views of area 5 are in the folder and the frame of area_5b. The first room has the defects of the release: a control
byte for a space and one inside a number, a second copy of a file, a misnamed room file, clutter of a file manager.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.furniture import ROOMS
from brickyard.ingest.simulate.rooms import Room, build_room
from brickyard.ingest.simulate.scannet import CAMERA_AXES
from brickyard.ingest.simulate.sensors import Camera, Picture, render, shading, visible
from brickyard.ingest.simulate.shapes import invert, pose
from brickyard.ingest.simulate.truth import write_arrays, write_json
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float32, Float64

Rng = np.random.Generator
POINTS, VIEWS = "Stanford3dDataset_v1.2", "2D-3D-S"
CLASSES = {
    "ceiling": "ceiling", "floor": "floor", "wall": "wall", "window": "window", "door": "door", "table": "table",
    "desk": "table", "chair": "chair", "couch": "sofa", "bookshelf": "bookcase", "whiteboard": "board",
}  # fmt: skip
"""Raw label of the room's models -> class of S3DIS; all others are clutter."""
TYPES = ("storage", "lounge", "office", "pantry", "WC", "openspace")
AREAS = (1, 5, 2, 5, 3, 4, 6)
AREA_5A_FROM_5B = pose(-4.10, 6.25, 0.0, -np.pi / 2)
MISSING_DEPTH, MISSING_LABEL = 65535, 0x0D0D0D


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A room of the release: names, its pose in the area, its objects and where they stand in the table of labels."""

    room: Room
    area: int
    name: str
    world_from_room: Float64
    objects: tuple[str, ...]
    first: int


def write_s3dis(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write `config.s3dis_rooms` rooms and their views below `out`; returns counts."""
    labels, counts = ["<UNK>_0_<UNK>_0_0"], Counter(rooms=0, views=0, points=0)
    numbers: Counter[tuple[int, str]] = Counter()
    angles: dict[int, list[str]] = {}
    for number in range(config.s3dis_rooms):
        rng = np.random.default_rng((seed, 6, number))
        kind = list(ROOMS)[number % len(ROOMS)]
        area, kind_name = AREAS[number % len(AREAS)], TYPES[number % len(ROOMS)]
        numbers[area, kind_name] += 1
        name, degrees = f"{kind_name}_{numbers[area, kind_name]}", int(rng.integers(0, 360))
        room = build_room(rng, kind, spacing=0.2)
        world_from_room = pose(rng.uniform(-30, 30), rng.uniform(-30, 30), rng.normal(0, 0.1), -np.radians(degrees))
        objects = tuple(CLASSES.get(label, "clutter") for label in room.instances)
        place = _Place(
            room=room, area=area, name=name, world_from_room=world_from_room, objects=objects, first=len(labels)
        )
        for label in objects:
            numbers[area, label] += 1
            labels.append(f"{label}_{numbers[area, label]}_{name}_{area}")
        angles.setdefault(area, []).append(f"{name} {degrees}\n")
        spots = [_stand(room, rng) for _ in range(2)]
        xyz = _write_points(out / POINTS, truth, place, spots, count=config.s3dis_points, rng=rng)
        _write_views(out / VIEWS, truth, place, spots, xyz, config=config, rng=rng)
        if number == 0:
            _damage(out / POINTS / f"Area_{area}" / name)
        counts += Counter(rooms=1, views=config.s3dis_views, points=len(xyz))
        tick(number + 1, config.s3dis_rooms)
    for area, lines in angles.items():
        title = f"## Global alignment angle per disjoint space in Area_{area} ##\n"
        (out / POINTS / f"Area_{area}" / f"Area_{area}_alignmentAngle.txt").write_text(title + "".join(lines))
    write_json(out / VIEWS / "assets/semantic_labels.json", labels)
    return dict(counts)


def _stand(room: Room, rng: Rng) -> Float64:
    """Where a scanner stands: eye height, nothing within half a metre at that height; float64 (3,)."""
    snapshot, (width, depth, _) = room.world.at(0), room.size
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rays = np.stack([np.cos(turn), np.sin(turn), np.zeros(24)], 1).astype(np.float32)
    spot = np.zeros(3)
    for _ in range(30):
        spot = np.array([rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * depth, rng.uniform(1.4, 1.6)])
        if snapshot.cast(np.broadcast_to(spot, rays.shape).astype(np.float32), rays).distance.min() > 0.5:
            break
    return spot


def _write_points(out: Path, truth: Path, place: _Place, spots: list[Float64], *, count: int, rng: Rng) -> Float64:
    """Annotation files and the room's file; returns the points in room coordinates, in the order of the files."""
    world = place.room.world
    xyz, face = _scan(world, spots, count, rng)
    color = _color(world, xyz, face)
    instance = world.instance[face]
    files: list[tuple[str, NDArray[np.intp]]] = []
    per_class: Counter[str] = Counter()
    for number, label in enumerate(place.objects, 1):
        mine = np.flatnonzero(instance == number)
        if len(mine):
            per_class[label] += 1
            files.append((f"{label}_{per_class[label]}.txt", mine))
    files.sort()
    shown = np.round(xyz @ place.world_from_room[:3, :3].T + place.world_from_room[:3, 3], 3)
    rows = np.column_stack([shown, color])
    folder = out / f"Area_{place.area}" / place.name
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for name, mine in files:
        (folder / "Annotations" / name).write_bytes(_text(rows[mine]))
    (folder / f"{place.name}.txt").write_bytes(_text(rows[rng.permutation(len(rows))]))
    order = np.concatenate([mine for _, mine in files])
    sizes = [len(mine) for _, mine in files]
    write_arrays(
        truth / f"Area_{place.area}" / place.name,
        {
            "xyz": shown[order],
            "label": np.repeat([name.partition("_")[0] for name, _ in files], sizes).astype("U8"),
            "object": instance[order] + place.first - 1,
            "normal": (world.at(0).normal[face[order]] @ place.world_from_room[:3, :3].T).astype(np.float32),
        },
    )
    written: Float64 = xyz[order]
    return written


def _scan(world: World, spots: list[Float64], count: int, rng: Rng) -> tuple[Float64, NDArray[np.intp]]:
    """About `count` points (N, 3), even over the surfaces that some spot sees, and the triangle of each."""
    corners = world.vertices[world.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    face = np.sort(rng.choice(len(area), int(count * 1.6), p=area / area.sum()))
    u, v = rng.random((2, len(face), 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    xyz = corners[face, 0] + u * (corners[face, 1] - corners[face, 0]) + v * (corners[face, 2] - corners[face, 0])
    snapshot = world.at(0)
    seen = np.zeros(len(face), np.bool_)
    for spot in spots:
        towards = spot - xyz
        start = (xyz + 0.01 * snapshot.normal[face]).astype(np.float32)
        faces_it = np.einsum("ij,ij->i", towards, snapshot.normal[face]) > 0
        seen |= faces_it & (snapshot.cast(start, towards.astype(np.float32)).distance > 0.98)
    return xyz[seen], face[seen]


def _color(world: World, xyz: Float64, face: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Colour of each point: the texture at its place under the baked light."""
    corners = world.vertices[world.faces[face]].astype(np.float64)
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], axis=2)
    bary: Float32 = np.einsum("nij,nj->ni", np.linalg.pinv(edges), xyz - corners[:, 0]).astype(np.float32)
    mapping = world.texture_map[face]
    texture = mapping[:, :2] + bary[:, :1] * mapping[:, 2:4] + bary[:, 1:] * mapping[:, 4:]
    color = world.atlas.look_up(world.material[face], texture, np.full(len(face), 0.02, np.float32))
    return np.asarray(np.clip(color * shading(world.at(0))[0][face], 0, 255), dtype=np.uint8)


def _text(rows: Float64) -> bytes:
    """Six decimals for everything, as in the release that is not aligned."""
    return b"".join(b"%.6f %.6f %.6f %.6f %.6f %.6f\n" % tuple(row) for row in rows.tolist())


def _write_views(
    out: Path, truth: Path, place: _Place, spots: list[Float64], xyz: Float64, *, config: SimulationConfig, rng: Rng
) -> None:
    size = config.s3dis_image_size
    cameras = [rng.bytes(16).hex() for _ in spots]
    arrays: dict[str, NDArray[np.generic]] = {}
    for number in range(config.s3dis_views):
        spot, view = spots[number % len(spots)], np.radians(rng.uniform(50, 80))
        target = np.array([*rng.uniform(0.1, 0.9, 2) * place.room.size[:2], 0.0])
        yaw = np.arctan2(target[1] - spot[1], target[0] - spot[0])
        room_from_camera = (
            pose(spot[0], spot[1], spot[2], yaw, rng.uniform(-0.1, 0.5), rng.normal(0, 0.02)) @ CAMERA_AXES
        )
        focal, middle = size / 2 / np.tan(view / 2), (size - 1) / 2
        camera = Camera(
            width=size, height=size, intrinsics=np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1]])
        )
        picture = render(place.room.world, camera, room_from_camera, 0.0, rng)
        part = f"area_{place.area}" if place.area != 5 else ("area_5a", "area_5b")[number % 2]
        world_from_camera = place.world_from_room @ room_from_camera
        if part == "area_5b":
            world_from_camera = invert(AREA_5A_FROM_5B) @ world_from_camera
        name = f"{cameras[number % len(spots)]}_{place.name}_frame_{number // len(spots)}"
        location = _write_view(out / part / "data", f"camera_{name}_domain", place, picture)
        table = _pose_table(camera, world_from_camera, view) | {
            "frame_num": number // len(spots), "camera_uuid": cameras[number % len(spots)],
            "room": f"{place.name}_{place.area}",
        }  # fmt: skip
        write_json(location, table)
        key = f"camera_{cameras[number % len(spots)]}_frame_{number // len(spots)}"
        arrays[f"{key}_object"] = _objects(place, picture).astype(np.int32)
        arrays[f"{key}_depth"] = picture.depth.astype(np.float32)
        arrays[f"visible_{key}"] = visible(place.room.world, camera, room_from_camera, 0.0, xyz, near=0.1, slack=0.01)
    write_arrays(truth / f"Area_{place.area}" / place.name, arrays)


def _objects(place: _Place, picture: Picture) -> NDArray[np.int64]:
    """Place in the table of labels of what each pixel shows; 0 where nothing was hit."""
    instance = place.room.world.instance[picture.face].astype(np.int64)
    return np.where(picture.face == MISS, 0, instance + place.first - 1)


def _write_view(data: Path, name: str, place: _Place, picture: Picture) -> Path:
    """The three images of a view; returns where its pose belongs."""
    units = np.round(np.where(picture.face == MISS, 0, picture.depth).astype(np.float64) * 512)
    depth = np.where(picture.face == MISS, MISSING_DEPTH, np.minimum(units, MISSING_DEPTH - 1)).astype(np.uint16)
    code = np.where(picture.face == MISS, MISSING_LABEL, _objects(place, picture))
    semantic = np.stack([code >> 16, (code >> 8) & 255, code & 255], axis=-1).astype(np.uint8)
    for kind, image in (("rgb", picture.color), ("depth", depth), ("semantic", semantic)):
        path = data / kind / f"{name}_{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", compress_level=6)
        path.write_bytes(stream.getvalue())
    return data / "pose" / f"{name}_pose.json"


def _pose_table(camera: Camera, world_from_camera: Float64, view: float) -> dict[str, object]:
    """A pose file: the camera counted from the corner of the image, world to camera, and where it stands."""
    corner = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return {
        "camera_k_matrix": (camera.intrinsics + corner).tolist(),
        "field_of_view_rads": view,
        "camera_rt_matrix": invert(world_from_camera)[:3].tolist(),
        "camera_location": world_from_camera[:3, 3].tolist(),
    }


def _damage(room: Path) -> None:
    """The known defects of the release; none of them costs a point of the annotation files."""
    wall = room / "Annotations/wall_1.txt"
    lines = wall.read_bytes().split(b"\n")
    lines[1] = b"\x10".join(lines[1].rsplit(b" ", 1))
    wall.write_bytes(b"\n".join(lines))
    (room / "Annotations/wall_1 (1).txt").write_bytes(wall.read_bytes())
    (room / "Annotations/.DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (room.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    whole = room / f"{room.name}.txt"
    text = whole.read_bytes().replace(b".", b".\x10", 1)
    whole.unlink()
    (room / f"copy_{room.name}.txt").write_bytes(text)
