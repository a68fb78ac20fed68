"""Writes simulated scans the way surveyors and apps ship theirs: a point file, photographs, and a transforms.json.

    street/{street.las, transforms.json, images/*.jpg}       LAS 1.4, point format 7, UTM coordinates with WKT
    room/{room.ply, transforms.json, images/*.jpg, depth/*.png}   binary PLY, normals
    office/{office.pcd, transforms.json, images/*.jpg, depth/*.png}   binary PCD, packed colours

Panoramic scanners stand in the scene and measure where they look, in colour. In the street a pulse that meets leaves
has a second echo behind them, each pulse has its GPS time, and points have ASPRS classes. Truth: `label` (KITTI's raw
ids in the street, nyu40 in rooms), `instance` and `xyz` of each point in the order of the file, and of each image
`<image>_depth`, `<image>_label` and `visible_<image>`.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import plyfile
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.kitti import RAW_IDS
from brickyard.ingest.simulate.rooms import build_room
from brickyard.ingest.simulate.scannet import CAMERA_AXES, NYU40
from brickyard.ingest.simulate.sensors import Camera, look, render, visible
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.streets import build_street
from brickyard.ingest.simulate.truth import picture_truth, raw_labels, write_arrays, write_json
from brickyard.ingest.simulate.world import MISS, World
from brickyard.shards.scene import Float32, Float64

Rng = np.random.Generator
ASPRS = {"terrain": 2, "vegetation": 5, "trunk": 5, "building": 6, "road": 11, "sidewalk": 11}
LEAVES = "vegetation"
UTM_ORIGIN = np.array([389_400.0, 5_819_700.0, 34.0])
"""World coordinates of the street's start."""
WKT = (
    'PROJCS["ETRS89 / UTM zone 33N",GEOGCS["ETRS89",DATUM["European_Terrestrial_Reference_System_1989",'
    'SPHEROID["GRS 1980",6378137,298.257222101]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",0],PARAMETER["central_meridian",15],'
    'PARAMETER["scale_factor",0.9996],PARAMETER["false_easting",500000],PARAMETER["false_northing",0],'
    'UNIT["metre",1],AUTHORITY["EPSG","25833"]]'
)
GPS_START_S = 361_500_000.25
"""Adjusted standard GPS time of the first pulse: June 2023."""
PULSES_PER_S = 50_000
MAX_RANGE = 60.0
NOISE = 0.004
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True, kw_only=True)
class _Scan:
    """N points: xyz float64 (N, 3) in the world of the file, and what a scanner knows of each.

    `rgb` uint8 (N, 3); `normal` float32 (N, 3), towards the scanner; `power` float32 (N,), 0..1; `face` the triangle;
    `pulse` int64 (N,); `echo`, `echoes` uint8 (N,).
    """

    xyz: Float64
    rgb: NDArray[np.uint8]
    normal: Float32
    power: Float32
    face: NDArray[np.int32]
    pulse: NDArray[np.int64]
    echo: NDArray[np.uint8]
    echoes: NDArray[np.uint8]


def write_pointfiles(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write the street and two rooms below `out`; returns counts."""
    points = 0
    for number, name in enumerate(("street", "room", "office")):
        rng = np.random.default_rng((seed, 9, number))
        (out / name).mkdir(parents=True, exist_ok=True)
        world, cameras = _street(config, rng) if name == "street" else _room(name, config, rng)
        spots = [camera[:3, 3] for camera in cameras[:: max(1, len(cameras) // 3)]]
        scan = _scan(world, spots, config.pointfiles_pulses, rng)
        if name == "street":
            written = _write_las(out / name / "street.las", world, scan)
        elif name == "room":
            written = _write_ply(out / name / "room.ply", scan)
        else:
            written = _write_pcd(out / name / "office.pcd", scan)
        labels = raw_labels(world, RAW_IDS if name == "street" else NYU40)
        arrays = _write_images(
            out / name, world, scan, cameras, labels, outdoor=name == "street", config=config, rng=rng
        )
        arrays |= {"label": labels[scan.face], "instance": world.instance[scan.face], "xyz": written}
        write_arrays(truth / name, arrays)
        points += len(scan.xyz)
        tick(number + 1, 3)
    return {"scans": 3, "points": points}


def _street(config: SimulationConfig, rng: Rng) -> tuple[World, list[Float64]]:
    """A street where nothing moves, and cameras along a walk through it."""
    street = build_street(rng, ego_roof=None, moving=False)
    places = [street.ego(time) for time in np.linspace(0, 4, config.pointfiles_images)]
    return street.world, [p @ pose(0, 0, 1.8, rng.uniform(-0.8, 0.8)) @ CAMERA_AXES for p in places]


def _room(name: str, config: SimulationConfig, rng: Rng) -> tuple[World, list[Float64]]:
    """A room, and cameras with half a metre of air around them that look across it."""
    room = build_room(rng, {"room": "Living room / Lounge", "office": "Office"}[name], spacing=0.2)
    snapshot, cameras = room.world.at(0), []
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    rays = np.stack([np.cos(turn), np.sin(turn), np.zeros(24)], 1).astype(np.float32)
    for _ in range(config.pointfiles_images):
        for _ in range(30):
            x, y = rng.uniform(0.2, 0.8, 2) * room.size[:2]
            z = rng.uniform(1.3, 1.7)
            if snapshot.cast(np.tile(np.array([x, y, z], np.float32), (24, 1)), rays).distance.min() > 0.5:
                break
        yaw = np.arctan2(room.size[1] / 2 - y, room.size[0] / 2 - x)
        cameras.append(pose(x, y, z, yaw, rng.uniform(0.1, 0.4)) @ CAMERA_AXES)
    return room.world, cameras


def _scan(world: World, spots: list[Float64], pulses: int, rng: Rng) -> _Scan:
    """Panoramas of `pulses` pulses in all: colour and range at once; leaves let a second echo through."""
    columns = int(np.sqrt(2.5 * pulses / len(spots)))
    azimuth, elevation = np.meshgrid(
        np.linspace(0, 2 * np.pi, columns, endpoint=False), np.radians(np.linspace(50, -65, int(columns / 2.5)))
    )
    level = np.cos(elevation)
    rays = np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(elevation)], -1).reshape(-1, 3)
    leaves = np.array([name == LEAVES for name in world.labels])[world.label]
    parts: list[dict[str, NDArray[Any]]] = []
    for number, spot in enumerate(spots):
        picture = look(
            world,
            spot,
            rays.astype(np.float32),
            (len(azimuth), columns),
            time=0.0,
            focal=columns / (2 * np.pi),
            rng=rng,
        )
        first = number * len(rays)
        face, distance = picture.face.ravel(), picture.depth.ravel().astype(np.float64)
        met = np.flatnonzero((face != MISS) & (distance < MAX_RANGE))
        behind, second = _second_echo(world, spot, rays, distance, met[leaves[face[met]]])
        echoes = np.ones(len(rays), np.uint8)
        echoes[behind] = 2
        for pulse, hit, length, echo in ((met, face[met], distance[met], 1), (behind, *second, 2)):
            normal = world.at(0).normal[hit]
            facing = np.einsum("ij,ij->i", normal, rays[pulse].astype(np.float32))
            measured = length + rng.normal(0, NOISE, len(length))
            parts.append({
                "xyz": spot + rays[pulse] * measured[:, None],
                "rgb": picture.color.reshape(-1, 3)[pulse],
                "normal": np.where(facing[:, None] > 0, -normal, normal),
                "power": np.clip(world.atlas.reflectance[world.material[hit]] * (0.3 + 0.7 * np.abs(facing)), 0, 1),
                "face": hit, "pulse": pulse + first, "echo": np.full(len(pulse), echo, np.uint8),
                "echoes": echoes[pulse],
            })  # fmt: skip
    return _Scan(**{key: np.concatenate([part[key] for part in parts]) for key in parts[0]})


def _second_echo(
    world: World, spot: Float64, rays: Float64, distance: Float64, pulses: NDArray[np.intp]
) -> tuple[NDArray[np.intp], tuple[NDArray[np.int32], Float64]]:
    """Of the pulses that met leaves, those that meet something else behind: pulse, and (triangle, distance)."""
    through = distance[pulses] + 0.3
    start = (spot + rays[pulses] * through[:, None]).astype(np.float32)
    hits = world.at(0).cast(start, rays[pulses].astype(np.float32))
    total = through + hits.distance
    kept = (hits.face != MISS) & (total < MAX_RANGE)
    return pulses[kept], (hits.face[kept], total[kept])


def _write_las(path: Path, world: World, scan: _Scan) -> Float64:
    header = laspy.LasHeader(version="1.4", point_format=7)
    header.creation_date = datetime.date(2023, 6, 18)
    header.scales, header.offsets = [0.001] * 3, UTM_ORIGIN
    header.global_encoding.wkt = True
    header.global_encoding.gps_time_type = laspy.header.GpsTimeType.STANDARD
    header.vlrs.append(laspy.VLR("LASF_Projection", 2112, "OGC WKT", WKT.encode() + b"\0"))
    las = laspy.LasData(header)
    las.x, las.y, las.z = (scan.xyz + UTM_ORIGIN).T
    las.red, las.green, las.blue = scan.rgb.T.astype(np.uint16) * 257
    las.intensity = np.rint(scan.power * 65535)
    las.classification = np.array([ASPRS.get(name, 1) for name in world.labels], np.uint8)[world.label[scan.face]]
    las.return_number, las.number_of_returns = scan.echo, scan.echoes
    las.gps_time = GPS_START_S + scan.pulse / PULSES_PER_S
    las.write(str(path))
    return np.asarray(las.xyz, np.float64)


def _write_ply(path: Path, scan: _Scan) -> Float64:
    columns = {"x": "f4", "y": "f4", "z": "f4", "nx": "f4", "ny": "f4", "nz": "f4", "red": "u1", "green": "u1"}
    rows = np.zeros(len(scan.xyz), list((columns | {"blue": "u1"}).items()))
    for names, values in (("x y z", scan.xyz), ("nx ny nz", scan.normal), ("red green blue", scan.rgb)):
        for name, column in zip(names.split(), values.T, strict=True):
            rows[name] = column
    plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")], byte_order="<").write(str(path))
    return np.asarray(np.stack([rows[axis] for axis in "xyz"], axis=1), np.float64)


def _write_pcd(path: Path, scan: _Scan) -> Float64:
    rows = np.zeros(len(scan.xyz), [("xyz", "<f4", (3,)), ("rgb", "<u4"), ("intensity", "<f4")])
    rows["xyz"], rows["intensity"] = scan.xyz, scan.power
    rows["rgb"] = scan.rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    lines = (
        "# .PCD v0.7 - Point Cloud Data file format", "VERSION 0.7", "FIELDS x y z rgb intensity", "SIZE 4 4 4 4 4",
        "TYPE F F F U F", "COUNT 1 1 1 1 1", f"WIDTH {len(rows)}", "HEIGHT 1", "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}", "DATA binary",
    )  # fmt: skip
    path.write_bytes("".join(f"{line}\n" for line in lines).encode() + rows.tobytes())
    return np.asarray(rows["xyz"], np.float64)


def _write_images(
    folder: Path, world: World, scan: _Scan, cameras: list[Float64], labels: NDArray[np.uint8], *, outdoor: bool,
    config: SimulationConfig, rng: Rng,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """Photographs, depth images of rooms, and transforms.json; returns the truth of the images."""
    width, height = config.pointfiles_image_size
    intrinsics = np.array([[0.8 * width, 0, 0.49 * width], [0, 0.8 * width, 0.51 * height], [0, 0, 1]])
    camera = Camera(width=width, height=height, intrinsics=intrinsics)
    frames: list[Mapping[str, Any]] = []
    arrays: dict[str, NDArray[Any]] = {}
    for number, world_from_camera in enumerate(cameras):
        name = f"{number:03d}"
        picture = render(world, camera, world_from_camera, 0.0, rng)
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture.color), quality=92)
        _write(folder / f"images/{name}.jpg", jpeg)
        shown = world_from_camera @ _OPENGL_FROM_OPENCV
        shown[:3, 3] += UTM_ORIGIN if outdoor else 0
        frame = {"file_path": f"images/{name}.jpg", "transform_matrix": shown.tolist()}
        if not outdoor:
            stream = io.BytesIO()
            millimetres = np.rint(np.where(np.isfinite(picture.depth), picture.depth, 0) * 1000)
            Image.fromarray(millimetres.astype(np.uint16)).save(stream, "PNG")
            _write(folder / f"depth/{name}.png", stream.getvalue())
            frame["depth_file_path"] = f"depth/{name}.png"
        frames.append(frame)
        arrays[f"{name}_label"], arrays[f"{name}_depth"] = picture_truth(picture, labels)
        arrays[f"visible_{name}"] = visible(world, camera, world_from_camera, 0.0, scan.xyz, near=0.1, slack=0.02)
    calibration = {"fl_x": 0.8 * width, "fl_y": 0.8 * width, "w": width, "h": height}
    calibration |= {"cx": 0.49 * width + 0.5, "cy": 0.51 * height + 0.5}
    write_json(folder / "transforms.json", {"camera_model": "OPENCV", **calibration, "frames": frames})
    return arrays


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
