"""Writes simulated streets the way nuScenes ships its mini release: tables, keyframes, sweeps, point labels.

Time is as in the original: a lidar row is stamped with the end of its turn and its points are compensated to it; each
camera fires when the beam passes its axis, so it is 0 to 43 ms earlier, with the vehicle's pose of that moment. Points
of the vehicle's own roof are in the files, as they are there. Tokens are digests of names, so they never change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from brickyard.ingest.simulate.boxes import points_inside, seen_share
from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.sensors import Camera, LidarModel, Picture, Sweep, anchors_at, fire, render, visible
from brickyard.ingest.simulate.shapes import pose
from brickyard.ingest.simulate.streets import Street, build_street
from brickyard.ingest.simulate.truth import picture_truth, raw_labels, write_arrays, write_json
from brickyard.shards.scene import Float64

VERSION = "v1.0-mini"
SCENES = (
    "scene-0061", "scene-0553", "scene-0103", "scene-0655", "scene-0757", "scene-0916", "scene-0796", "scene-1077",
    "scene-1094", "scene-1100",
)  # fmt: skip
"""The names of the mini release, validation scenes (0103, 0916) moved forward so that small worlds have one."""
CATEGORIES = (
    "noise", "animal", "human.pedestrian.adult", "human.pedestrian.child", "human.pedestrian.construction_worker",
    "human.pedestrian.personal_mobility", "human.pedestrian.police_officer", "human.pedestrian.stroller",
    "human.pedestrian.wheelchair", "movable_object.barrier", "movable_object.debris",
    "movable_object.pushable_pullable", "movable_object.trafficcone", "static_object.bicycle_rack",
    "vehicle.bicycle", "vehicle.bus.bendy", "vehicle.bus.rigid", "vehicle.car", "vehicle.construction",
    "vehicle.emergency.ambulance", "vehicle.emergency.police", "vehicle.motorcycle", "vehicle.trailer",
    "vehicle.truck", "flat.driveable_surface", "flat.other", "flat.sidewalk", "flat.terrain", "static.manmade",
    "static.other", "static.vegetation", "vehicle.ego",
)  # fmt: skip
GENERAL_IDS = {
    "road": 24, "sidewalk": 26, "terrain": 27, "building": 28, "pole": 28, "sign": 28, "fence": 28, "trunk": 30,
    "vegetation": 30, "ego": 31, "car": 17, "truck": 23, "bus": 16, "bicycle": 14, "pedestrian": 2, "barrier": 9,
    "traffic_cone": 12,
}  # fmt: skip
ATTRIBUTES = ("vehicle.moving", "vehicle.stopped", "vehicle.parked", "cycle.with_rider", "cycle.without_rider",
              "pedestrian.sitting_lying_down", "pedestrian.standing", "pedestrian.moving")  # fmt: skip
LOCATIONS = ("singapore-onenorth", "boston-seaport", "singapore-queenstown", "singapore-hollandvillage")
RIG: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "CAM_FRONT": ((1.70, 0.02, 1.51), 0.3, 1266.0),
    "CAM_FRONT_RIGHT": ((1.55, -0.49, 1.50), -56.2, 1261.0),
    "CAM_BACK_RIGHT": ((1.01, -0.48, 1.56), -110.8, 1259.0),
    "CAM_BACK": ((0.03, 0.00, 1.58), 179.6, 809.0),
    "CAM_BACK_LEFT": ((1.04, 0.48, 1.59), 108.6, 1257.0),
    "CAM_FRONT_LEFT": ((1.52, 0.49, 1.51), 55.1, 1273.0),
}
"""Camera -> position in the vehicle (metres), azimuth (degrees), focal length at 1600 pixels of width."""
LIDAR = "LIDAR_TOP"
PERIOD = 0.05
CAMERA_PERIOD = 1 / 12
SEAM = 104.0
"""Azimuth at which a turn begins and ends, just before the left rear camera."""
KEY_STEP = 0.5
_OPENCV: Float64 = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)


def token(*names: object) -> str:
    """32 hex digits that stand for the names."""
    return hashlib.md5("/".join(map(str, names)).encode(), usedforsecurity=False).hexdigest()


def write_nuscenes(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write up to ten scenes below `out`; returns counts."""
    tables = _fixed_tables(config.nuscenes_panoptic)
    counts = {"scenes": 0, "frames": 0, "points": 0}
    names = SCENES[: config.nuscenes_scenes]
    for number, name in enumerate(names):
        rng = np.random.default_rng((seed, 2, number))
        scene = _SceneWriter(out, truth, name, number, config=config, tables=tables, rng=rng)
        scene.write()
        counts["scenes"] += 1
        counts["frames"] += config.nuscenes_keyframes
        counts["points"] += scene.points
        tick(number + 1, len(names))
    _write_maps(out, tables)
    for table, rows in tables.items():
        write_json(out / VERSION / f"{table}.json", rows)
    return counts


Tables = dict[str, list[dict[str, Any]]]


def _fixed_tables(panoptic: bool) -> Tables:
    tables: Tables = {
        name: []
        for name in ("scene", "log", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sample_annotation",
                     "instance", "lidarseg", "map", *(("panoptic",) if panoptic else ()))
    }  # fmt: skip
    tables["category"] = [
        {"token": token("category", c), "name": c, "description": c, "index": k} for k, c in enumerate(CATEGORIES)
    ]
    tables["attribute"] = [{"token": token("attribute", a), "name": a, "description": a} for a in ATTRIBUTES]
    tables["visibility"] = [
        {"token": str(k + 1), "level": level, "description": level}
        for k, level in enumerate(("v0-40", "v40-60", "v60-80", "v80-100"))
    ]
    channels = [(LIDAR, "lidar"), *((c, "camera") for c in RIG)]
    tables["sensor"] = [{"token": token("sensor", c), "channel": c, "modality": m} for c, m in channels]
    return tables


def _write_maps(out: Path, tables: Tables) -> None:
    (out / "maps").mkdir(parents=True, exist_ok=True)
    for location in LOCATIONS:
        logs = [row["token"] for row in tables["log"] if row["location"] == location]
        name = token("map", location)
        if logs:
            Image.new("L", (64, 64), 255).save(out / "maps" / f"{name}.png")
            tables["map"].append(
                {"category": "semantic_prior", "token": name, "filename": f"maps/{name}.png", "log_tokens": logs}
            )


def _rotation(matrix: Float64) -> list[float]:
    """Quaternion w, x, y, z of a rotation matrix."""
    from pyquaternion import Quaternion

    return [float(x) for x in Quaternion(matrix=matrix, rtol=1e-4, atol=1e-6).normalised.elements]


class _SceneWriter:
    """Writes one scene: its street, its drive, its rows."""

    def __init__(
        self,
        out: Path,
        truth: Path,
        name: str,
        number: int,
        *,
        config: SimulationConfig,
        tables: Tables,
        rng: np.random.Generator,
    ) -> None:
        self.out, self.truth, self.name, self.config, self.tables, self.rng = out, truth, name, config, tables, rng
        self.street: Street = build_street(rng, ego_roof=1.5)
        self.labels = raw_labels(self.street.world, GENERAL_IDS)
        self.global_from_street = pose(rng.uniform(300, 2000), rng.uniform(300, 2000), 0, rng.uniform(-np.pi, np.pi))
        self.base = 1_532_402_927_647_951 + number * 60_000_000
        self.log = f"n{900 + number}-2018-07-24-11-{number:02d}-45+0800"
        self.points = 0
        self.last: dict[str, dict[str, Any]] = {}
        width, height = config.nuscenes_image_size
        self.ego_from: dict[str, Float64] = {
            LIDAR: pose(
                0.94, 0.0, 1.84, np.radians(-90 + rng.normal(0, 0.4)), *np.radians(rng.normal(0, 0.5, 2)).tolist()
            )
        }
        self.cameras: dict[str, Camera] = {}
        for channel, (place, azimuth, focal) in RIG.items():
            tilt = np.radians(rng.normal(0, 0.4, 3))
            self.ego_from[channel] = pose(*place, np.radians(azimuth) + tilt[0], tilt[1], tilt[2]) @ _OPENCV
            f = focal * width / 1600 * (1 + rng.normal(0, 0.002))
            center = (width * (0.505 + rng.normal(0, 0.003)), height * (0.545 + rng.normal(0, 0.004)))
            k = np.array([[f, 0, center[0]], [0, f, center[1]], [0, 0, 1]])
            self.cameras[channel] = Camera(width=width, height=height, intrinsics=k)
        self.lidar = LidarModel(
            elevations=tuple(np.linspace(-30.67, 10.67, 32).tolist()), columns=config.nuscenes_columns,
            period=PERIOD, start=SEAM,
        )  # fmt: skip

    def write(self) -> None:
        self._sensors()
        samples = [token(self.name, "sample", k) for k in range(self.config.nuscenes_keyframes)]
        annotations: dict[int, list[dict[str, Any]]] = {}
        for k, sample in enumerate(samples):
            time = KEY_STEP * (k + 1)
            for back in range(self.config.nuscenes_sweeps if k else 0, 0, -1):
                self._sweep(time - PERIOD * back, sample, key=False)
            sweep, lidar_token = self._sweep(time, sample, key=True)
            self._annotate(sweep, time, sample, annotations)
            for back in range(self.config.nuscenes_camera_sweeps if k else 0, 0, -1):
                self._images_between(time, back, sample)
            arrays = self._pictures(sweep, time, sample)
            arrays |= {"label": self.labels[sweep.face], "instance": self.street.world.instance[sweep.face]}
            write_arrays(self.truth / lidar_token, arrays)
            near = {"prev": samples[k - 1] if k else "", "next": samples[k + 1] if k + 1 < len(samples) else ""}
            row = {"token": sample, "timestamp": self._stamp(time), **near, "scene_token": token(self.name)}
            self.tables["sample"].append(row)
        self._instances(annotations)
        self.tables["log"].append(
            {"token": token(self.log), "logfile": self.log, "vehicle": self.log[:4], "date_captured": "2018-07-24",
             "location": LOCATIONS[int(self.log[1:4]) % 4]}
        )  # fmt: skip
        self.tables["scene"].append(
            {"token": token(self.name), "log_token": token(self.log), "nbr_samples": len(samples), "name": self.name,
             "first_sample_token": samples[0], "last_sample_token": samples[-1], "description": "A simulated street"}
        )  # fmt: skip

    def _stamp(self, time: float) -> int:
        return self.base + round(time * 1e6)

    def _sensors(self) -> None:
        for channel, ego_from_sensor in self.ego_from.items():
            camera = self.cameras.get(channel)
            self.tables["calibrated_sensor"].append(
                {"token": token(self.name, "calibrated", channel), "sensor_token": token("sensor", channel),
                 "translation": ego_from_sensor[:3, 3].tolist(), "rotation": _rotation(ego_from_sensor[:3, :3]),
                 "camera_intrinsic": camera.intrinsics.tolist() if camera else []}
            )  # fmt: skip

    def _data(self, channel: str, time: float, sample: str, *, key: bool, suffix: str, content: bytes) -> str:
        """Write a sensor file with its rows; returns the token of its sample_data."""
        stamp = self._stamp(time)
        name = f"{'samples' if key else 'sweeps'}/{channel}/{self.log}__{channel}__{stamp}.{suffix}"
        path = self.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        own, camera, previous = token(self.name, channel, stamp), self.cameras.get(channel), self.last.get(channel)
        row = {
            "token": own, "sample_token": sample, "ego_pose_token": own, "timestamp": stamp,
            "calibrated_sensor_token": token(self.name, "calibrated", channel),
            "fileformat": "jpg" if camera else "pcd", "is_key_frame": key, "height": camera.height if camera else 0,
            "width": camera.width if camera else 0, "filename": name, 
            "prev": previous["token"] if previous else "", "next": "",
        }  # fmt: skip
        if previous:
            previous["next"] = own
        self.last[channel] = row
        self.tables["sample_data"].append(row)
        place = self.global_from_street @ self.street.ego(time)
        self.tables["ego_pose"].append(
            {
                "token": own,
                "timestamp": stamp,
                "rotation": _rotation(place[:3, :3]),
                "translation": place[:3, 3].tolist(),
            }
        )
        return own

    def _sweep(self, time: float, sample: str, key: bool) -> tuple[Sweep, str]:
        def world_from_lidar(moment: float) -> Float64:
            return np.asarray(self.street.ego(moment) @ self.ego_from[LIDAR])

        sweep = fire(
            self.street.world, self.lidar, world_from_lidar, time - PERIOD, reference=time, yaw=90.0, rng=self.rng
        )
        columns = [sweep.xyz, np.round(sweep.intensity * 120)[:, None], sweep.ring[:, None]]
        content = np.concatenate(columns, 1).astype("<f4").tobytes()
        own = self._data(LIDAR, time, sample, key=key, suffix="pcd.bin", content=content)
        if key:
            self.points += len(sweep.xyz)
            name = f"lidarseg/{VERSION}/{own}_lidarseg.bin"
            (self.out / name).parent.mkdir(parents=True, exist_ok=True)
            (self.out / name).write_bytes(self.labels[sweep.face].tobytes())
            self.tables["lidarseg"].append({"token": own, "sample_data_token": own, "filename": name})
            if self.config.nuscenes_panoptic:
                self._panoptic(sweep, own)
        return sweep, own

    def _panoptic(self, sweep: Sweep, own: str) -> None:
        """class * 1000 + number of each point; numbers count the instances of a class in the scene, 0 is stuff."""
        label, instance = self.labels.astype(np.uint16), self.street.world.instance
        number = np.zeros(len(label), np.uint16)
        for kind in np.unique(label[instance > 0]):
            mine = (label == kind) & (instance > 0)
            number[mine] = 1 + np.unique(instance[mine], return_inverse=True)[1]
        name = f"panoptic/{VERSION}/{own}_panoptic.npz"
        (self.out / name).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.out / name, data=(label * np.uint16(1000) + number)[sweep.face])
        self.tables["panoptic"].append({"token": own, "sample_data_token": own, "filename": name})

    def _images_between(self, time: float, back: int, sample: str) -> None:
        """The images of all cameras, `back` exposures before those of the keyframe."""
        for channel in self.cameras:
            self._picture(channel, time - CAMERA_PERIOD * back, sample, key=False)

    def _picture(self, channel: str, time: float, sample: str, *, key: bool) -> tuple[Picture, Float64, float]:
        """Take and write an image as the beam of a turn that ends at `time` passes; returns its pose and moment too."""
        camera = self.cameras[channel]
        turned = (SEAM - RIG[channel][1]) % 360
        moment = round(time - PERIOD * (1 - turned / 360), 6)
        place = self.street.ego(moment) @ self.ego_from[channel]
        picture = render(self.street.world, camera, place, moment, self.rng)
        jpeg = simplejpeg.encode_jpeg(picture.color, quality=90)
        self._data(channel, moment, sample, key=key, suffix="jpg", content=jpeg)
        return picture, place, moment

    def _pictures(self, sweep: Sweep, time: float, sample: str) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        for channel, camera in self.cameras.items():
            picture, place, moment = self._picture(channel, time, sample, key=True)
            arrays[f"{channel}_label"], arrays[f"{channel}_depth"] = picture_truth(picture, self.labels)
            spots = anchors_at(self.street.world, sweep, moment)
            seen = visible(self.street.world, camera, place, moment, spots)
            arrays[f"visible_{channel}"] = seen & (self.labels[sweep.face] != GENERAL_IDS["ego"])
        return arrays

    def _annotate(self, sweep: Sweep, time: float, sample: str, found: dict[int, list[dict[str, Any]]]) -> None:
        eye = self.street.ego(time) @ self.ego_from[LIDAR]
        points = sweep.xyz @ eye[:3, :3].T + eye[:3, 3]
        shares = seen_share(self.street.world, self.street.actors, time, eye[:3, 3])
        for actor, share in zip(self.street.actors, shares, strict=True):
            count = points_inside(actor, time, points)
            if not count:
                continue
            place = self.global_from_street @ actor.trajectory(time)
            length, width, height = actor.size
            row = {
                "token": token(self.name, "box", actor.instance, sample), "sample_token": sample,
                "instance_token": token(self.name, "instance", actor.instance),
                "visibility_token": str(1 + int(np.searchsorted((0.4, 0.6, 0.8), share))),
                "attribute_tokens": [token("attribute", a) for a in _attributes(actor.label, actor.moving)],
                "translation": (place[:3, 3] + (0, 0, height / 2)).tolist(), "size": [width, length, height],
                "rotation": _rotation(place[:3, :3]), "prev": "", "next": "", 
                "num_lidar_pts": count, "num_radar_pts": 0,
            }  # fmt: skip
            found.setdefault(actor.instance, []).append(row)
            self.tables["sample_annotation"].append(row)

    def _instances(self, found: dict[int, list[dict[str, Any]]]) -> None:
        kinds = {actor.instance: actor.label for actor in self.street.actors}
        for instance, rows in found.items():
            for before, after in pairwise(rows):
                before["next"], after["prev"] = after["token"], before["token"]
            self.tables["instance"].append(
                {"token": rows[0]["instance_token"], "nbr_annotations": len(rows),
                 "category_token": token("category", CATEGORIES[GENERAL_IDS[kinds[instance]]]),
                 "first_annotation_token": rows[0]["token"], "last_annotation_token": rows[-1]["token"]}
            )  # fmt: skip


def _attributes(label: str, moving: bool) -> tuple[str, ...]:
    if label in ("car", "truck", "bus"):
        return ("vehicle.moving" if moving else "vehicle.parked",)
    return {"pedestrian": ("pedestrian.moving",), "bicycle": ("cycle.without_rider",)}.get(label, ())
