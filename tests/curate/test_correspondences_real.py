"""The chain on a real nuScenes keyframe equals the nuScenes devkit's, camera by camera and point by point."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brickyard.curate.correspondences import CorrespondenceConfig, add_correspondences
from brickyard.curate.superpixels import SlicConfig, add_superpixels
from brickyard.ingest.nuscenes import SOURCE
from brickyard.ingest.source import SceneRef
from brickyard.shards.cameras import project
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def sweep(samples: Path) -> Scene:
    (ref,) = SOURCE.plan(Store(samples / "nuscenes"), SOURCE.options())
    assert isinstance(ref, SceneRef)
    return SOURCE.read(ref)


@pytest.fixture(scope="module")
def paired(sweep: Scene) -> Scene:
    return add_correspondences(sweep, CorrespondenceConfig())


def test_pairs_equal_the_devkit_in_all_cameras(samples: Path, paired: Scene) -> None:
    devkit = pytest.importorskip("nuscenes.nuscenes")
    tables = devkit.NuScenes(version="v1.0-mini", dataroot=str(samples / "nuscenes"), verbose=False)
    data = tables.sample[0]["data"]
    assert len(paired.views) == 6 and paired.points is not None
    for view in paired.views:
        uv, depth, _ = tables.explorer.map_pointcloud_to_image(data["LIDAR_TOP"], data[view.name])
        pairs = view.pairs
        assert pairs is not None
        # The devkit returns pixels without point numbers, in the order of the points, which is our order too.
        assert len(pairs) == uv.shape[1]
        np.testing.assert_allclose(pairs.depth, depth, rtol=1e-5, atol=1e-4)
        # The devkit goes through the world in float32: steps of 6e-5 m, which are up to 0.04 pixels here.
        exact = project(paired.points.xyz[pairs.point], view).uv
        np.testing.assert_allclose(exact, uv[:2].T, rtol=0, atol=0.05)
        np.testing.assert_array_equal(pairs.pixel, np.rint(exact))


def test_front_camera_has_the_golden_number_of_points(paired: Scene) -> None:
    counts = {view.name: len(view.pairs) for view in paired.views if view.pairs is not None}
    assert counts["CAM_FRONT"] == 3053
    assert sum(counts.values()) == 22_103


def test_few_points_are_hidden_and_they_are_far_behind_something(paired: Scene) -> None:
    for view in paired.views:
        pairs = view.pairs
        assert pairs is not None
        hidden = ~pairs.visible
        assert 0.01 < hidden.mean() < 0.06, view.name
        # Every hidden point has a visible one nearby in the picture that is clearly nearer.
        seen = pairs.pixel[pairs.visible].astype(float)
        for pixel, depth in zip(pairs.pixel[hidden].astype(float), pairs.depth[hidden], strict=True):
            near = (np.abs(seen - pixel) < (40, 60)).all(axis=1)
            assert (pairs.depth[pairs.visible][near] < depth * 0.985).any()


def test_superpixels_of_a_real_image_fit_one_byte(sweep: Scene) -> None:
    (view,) = add_superpixels(replace(sweep, views=sweep.views[:1]), SlicConfig()).views
    assert view.superpixels is not None and 60 < view.superpixels.count <= 150
