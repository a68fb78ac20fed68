"""Writes simulated streets the way Waymo ships its perception dataset, in both of its forms, with the same values.

`v1/<split>/segment-<name>_with_camera_labels.tfrecord` and `v2/<split>/<component>/<name>.parquet`. The world lies tens
of kilometres from its origin, TOP turns while the vehicle drives, cameras have rolling shutters, every other frame is
labelled. `lidar_camera_projection` is the truth of the rays (see `waymo_rig`), as the truth beside the files is:
`xyz` float64 (N, 3) in the vehicle's frame, `label`, `instance` and `return` of each point in the order of lasers,
returns and pixels, and `uv_<camera>` float64 (N, 2), NaN where the camera does not see that far or wide.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from brickyard.ingest.simulate.config import SimulationConfig
from brickyard.ingest.simulate.shapes import Int32, invert, pose
from brickyard.ingest.simulate.streets import Street, build_street
from brickyard.ingest.simulate.truth import raw_labels, write_arrays
from brickyard.ingest.simulate.waymo_format import (
    DIVISOR,
    FrameData,
    Shot,
    component_rows,
    frame_record,
    write_component,
)
from brickyard.ingest.simulate.waymo_rig import READOUT, SHUTTER, Drive, Echoes, build_rig, in_vehicle, measure
from brickyard.ingest.simulate.world import MISS
from brickyard.shards.scene import Float64

SPLITS = ("training", "validation", "testing", "domain_adaptation")
LIDAR_IDS = {
    "road": 18, "sidewalk": 22, "terrain": 20, "building": 14, "pole": 10, "sign": 8, "fence": 14, "trunk": 16,
    "vegetation": 15, "car": 1, "truck": 2, "bus": 3, "bicycle": 12, "pedestrian": 7, "barrier": 0, "traffic_cone": 11,
}  # fmt: skip
CAMERA_IDS = {
    "road": 20, "sidewalk": 23, "terrain": 26, "building": 19, "pole": 15, "sign": 17, "fence": 28, "trunk": 24,
    "vegetation": 24, "car": 2, "truck": 3, "bus": 4, "bicycle": 6, "pedestrian": 9, "barrier": 0, "traffic_cone": 14,
}  # fmt: skip
SKY = 25
PERIOD = 0.1
CAMERAS = ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT")


def write_waymo(
    out: Path, truth: Path, seed: int, config: SimulationConfig, tick: Callable[[int, int], None]
) -> dict[str, int]:
    """Write segments below `out/v1` and `out/v2`; returns counts."""
    counts = {"scenes": 0, "frames": 0, "points": 0}
    total = config.waymo_segments * config.waymo_frames
    for number in range(config.waymo_segments):
        segment = Segment(number, np.random.default_rng((seed, 11, number)), config)
        frames = []
        for k in range(config.waymo_frames):
            frames.append(segment.frame(k, truth))
            counts["frames"] += 1
            counts["points"] += sum(len(part) for e in frames[-1].echoes.values() for part in e.points)
            tick(counts["frames"], total)
        split = SPLITS[number % len(SPLITS)]
        records = [frame_record(frame, segment.cameras, segment.lidars) for frame in frames]
        file = out / "v1" / split / f"segment-{segment.name}_with_camera_labels.tfrecord"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"".join(records))
        for component, rows in component_rows(frames, segment.cameras, segment.lidars).items():
            write_component(out / "v2" / split / component / f"{segment.name}.parquet", rows)
        counts["scenes"] += 1
    return counts


class Segment:
    """One drive: a street, the path through it, the rig."""

    def __init__(self, number: int, rng: np.random.Generator, config: SimulationConfig) -> None:
        self.rng = rng
        self.name = f"{10_000_000_000_000_000 + 7919 * number}_{100 + number}_000_{120 + number}_000"
        self.start_us = 1_553_735_853_000_000 + number * 60_000_000
        self.street: Street = build_street(rng, ego_roof=None)
        world_from_street = pose(-25_000 + 900 * number, 41_000, 12, rng.uniform(-np.pi, np.pi))
        self.street_from_world = invert(world_from_street)
        speed = config.waymo_speed if config.waymo_speed is not None else float(rng.uniform(5, 14))
        self.drive = Drive(start=world_from_street @ self.street.ego(0.0), speed=speed)
        self.cameras, self.lidars = build_rig(config.waymo_image_size, config.waymo_columns, config.waymo_rows)
        self.lidar_ids = raw_labels(self.street.world, LIDAR_IDS)
        self.camera_ids = raw_labels(self.street.world, CAMERA_IDS)
        soft = np.array([name in ("vegetation", "fence") for name in self.street.world.labels])
        self.soft: NDArray[np.bool_] = soft[self.street.world.label]

    def frame(self, number: int, truth: Path | None) -> FrameData:
        """One frame, and its truth if a folder for it is given."""
        time, labelled = PERIOD * number, number % 2 == 0
        vehicle = self.drive.pose(time)
        echoes = {
            lidar.number: measure(
                self.street.world, self.street_from_world, self.drive, lidar, time, soft=self.soft, rng=self.rng
            )
            for lidar in self.lidars
        }
        seen = {camera.number: self._seen(camera.number, time, echoes) for camera in self.cameras}
        shots = {camera.number: self._shot(camera.number, time, labelled) for camera in self.cameras}
        stamp = self.start_us + round(time * 1e6)
        if truth is not None:
            self._write_truth(truth / self.name / str(stamp), echoes, seen, vehicle)
        return FrameData(
            segment=self.name, timestamp_us=stamp, pose=vehicle, shots=shots, echoes=echoes,
            links={n: (self._links(e, seen, n, 0), self._links(e, seen, n, 1)) for n, e in echoes.items()},
            labels=(self._labels(echoes[1].faces[0]), self._labels(echoes[1].faces[1])) if labelled else None,
        )  # fmt: skip

    def _seen(self, camera: int, time: float, echoes: dict[int, Echoes]) -> dict[tuple[int, int], Float64]:
        """(laser, echo) -> where the camera sees each of its points."""
        model = self.cameras[camera - 1]
        return {(n, k): model.see(self.drive, time, e.points[k]) for n, e in echoes.items() for k in range(2)}

    def _links(
        self, echoes: Echoes, seen: dict[int, dict[tuple[int, int], Float64]], laser: int, echo: int
    ) -> NDArray[np.int32]:
        """(camera, x, y) twice for each pixel, camera 0 where no (other) camera sees its point."""
        filled = echoes.images[echo][..., 0] > 0
        links = np.zeros((int(filled.sum()), 6), np.int32)
        for camera in sorted(seen):
            uv = seen[camera][laser, echo]
            for slot in (0, 3):
                free = np.flatnonzero(np.isfinite(uv[:, 0]) & (links[:, slot] == 0) & (links[:, 0] != camera))
                links[free, slot] = camera
                links[free, slot + 1 : slot + 3] = np.floor(uv[free])
        image = np.zeros((*filled.shape, 6), np.int32)
        image[filled] = links
        return image

    def _labels(self, face: Int32) -> NDArray[np.int32]:
        """(instance, class) of each pixel, 0 where nothing was hit."""
        labels = np.zeros((*face.shape, 2), np.int32)
        hit = face != MISS
        labels[hit, 0], labels[hit, 1] = self.street.world.instance[face[hit]], self.lidar_ids[face[hit]]
        return labels

    def _shot(self, number: int, time: float, labelled: bool) -> Shot:
        camera = self.cameras[number - 1]
        color, face = camera.draw(self.street.world, self.street_from_world, self.drive, time, self.rng)
        panoptic = None
        if labelled:
            classes, instance = self.camera_ids[face].astype(np.int32), self.street.world.instance[face] % DIVISOR
            values = np.where(face == MISS, SKY * DIVISOR, classes * DIVISOR + instance)
            buffer = io.BytesIO()
            Image.fromarray(values.astype(np.uint16)).save(buffer, "PNG")
            panoptic = buffer.getvalue()
        moment = time + camera.delay + 0.003  # poses are of another moment than the middle of the read-out
        clock = self.start_us * 1e-6
        return Shot(
            jpeg=simplejpeg.encode_jpeg(color, quality=90),
            panoptic=panoptic,
            pose=self.drive.pose(moment),
            velocity=self.drive.velocity(moment),
            pose_time=clock + moment,
            trigger=clock + time + camera.delay - READOUT / 2 - SHUTTER / 2,
        )

    def _write_truth(
        self, folder: Path, echoes: dict[int, Echoes], seen: dict[int, dict[tuple[int, int], Float64]], vehicle: Float64
    ) -> None:
        order = [(n, k) for n in sorted(echoes) for k in range(2)]
        faces = np.concatenate([echoes[n].faces[k][echoes[n].images[k][..., 0] > 0] for n, k in order])
        points = np.concatenate([echoes[n].points[k] for n, k in order])
        arrays = {
            "xyz": in_vehicle(points, vehicle),
            "label": self.lidar_ids[faces],
            "instance": self.street.world.instance[faces],
            "return": np.concatenate([np.full(len(echoes[n].points[k]), k + 1, np.uint8) for n, k in order]),
        }
        for number, name in enumerate(CAMERAS, 1):
            arrays[f"uv_{name}"] = np.concatenate([seen[number][key] for key in order])
        write_arrays(folder, arrays)
