"""Answers for scenes that nobody has seen: each target's identities, and drawn classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.evaluate.predictions.writer import Answer
from brickyard.shards.scene import Identity
from brickyard.shards.taxonomy import taxonomy

SCENES = {
    "scannet": ("scannet", "scene07{:02d}_00"),
    "scannet200": ("scannet", "scene07{:02d}_00"),
    "s3dis": ("s3dis", "Area_5/office_{}"),
    "semantickitti": ("kitti_odometry", "11/{:06d}"),
    "nuscenes": ("nuscenes", "scene-0103/{:032x}"),
    "waymo": ("waymo_v1", "1024360143612057520_3580_000_3600_000/{:06d}"),
}


def answer(target: str, number: int = 0, points: int = 300, **changed: Any) -> Answer:
    """The answer of scene `number`, of which each class has some point."""
    rng = np.random.default_rng((7, number))
    dataset, pattern = SCENES[target]
    scene_id = pattern.format(number)
    measured: tuple[Any, ...] = ()
    time = 1_500_000_000_123_456_000 + 1000 * number
    if target == "waymo":
        measured = tuple(rng.random((6, 50)) < share for share in (0.7, 0.2))
        points = sum(int(mask.sum()) for mask in measured)
    classes = len(taxonomy(TARGETS[target].taxonomy).classes)
    drawn = np.where(np.arange(points) < classes, np.arange(points), rng.integers(0, classes, points)) % classes
    values: dict[str, Any] = {
        "identity": Identity(
            dataset=dataset, version="1", split="val", sequence=scene_id.rpartition("/")[0] or scene_id,
            scene_id=scene_id, timestamp_ns=time, domain="outdoor", licence="CC0-1.0",
        ),
        "classes": drawn,
        "raw_points": points,
        "token": f"{number + 10:032x}" if target == "nuscenes" else "",
        "measured": measured,
    }  # fmt: skip
    return Answer(**(values | changed))
