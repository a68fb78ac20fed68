"""Figures of real drives: yaw is right to some tenths of a degree in single sweeps, and blur shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFilter

from brickyard.curate.describe.calibration import describe_calibration
from brickyard.curate.describe.describe import describe
from brickyard.curate.describe.images import chosen_views, decode_views
from brickyard.ingest.source import SceneRef, find_source
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from tests.benchmarks.curation import pictured, rotation

pytestmark = pytest.mark.real
SWEEPS = [("nuscenes", "nuscenes"), ("kitti_raw", "kitti/raw"), ("kitti_object", "kitti/object")]


@pytest.fixture(scope="module")
def sweeps(samples: Path) -> list[Scene]:
    """A keyframe of nuScenes, three frames of a drive of KITTI, two of its object benchmark."""

    def read(name: str, folder: str) -> Iterator[Scene]:
        source = find_source(name)
        for ref in source.plan(Store(samples / folder), source.options()):
            if isinstance(ref, SceneRef):
                yield source.read(ref)

    return [scene for name, folder in SWEEPS for scene in islice(read(name, folder), 3)]


def yaw(scene: Scene, degrees: float) -> float:
    """What is found after every camera is turned about its own y axis."""
    turn = rotation(np.array([0.0, 1, 0]), degrees)
    views = [
        replace(view, scene_from_camera=view.scene_from_camera @ turn)
        for view in chosen_views(scene)
        if view.scene_from_camera is not None
    ]
    return describe_calibration(scene, decode_views(views))["yaw_off_degrees"]


def test_the_yaw_of_real_cameras(sweeps: list[Scene]) -> None:
    assert len(sweeps) >= 4
    assert all(abs(yaw(scene, 0)) < 0.3 for scene in sweeps)


@pytest.mark.parametrize("degrees", [-2.0, 1.0, 2.0])
def test_cameras_that_were_turned(sweeps: list[Scene], degrees: float) -> None:
    """The median over a drive, as a recipe would take it."""
    for dataset in sorted({scene.identity.dataset for scene in sweeps}):
        found = [yaw(scene, degrees) for scene in sweeps if scene.identity.dataset == dataset]
        assert np.median(found) == pytest.approx(degrees, abs=0.5), dataset


def test_blur_shows(sweeps: list[Scene]) -> None:
    scene = sweeps[-1]
    soft = describe(pictured(scene, lambda image: image.filter(ImageFilter.GaussianBlur(6))))
    assert soft.figures["sharpness"] < 0.2 * describe(scene).figures["sharpness"]
