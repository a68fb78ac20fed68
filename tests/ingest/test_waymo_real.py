"""Waymo's own files: a real frame whose range images were ray cast through its real calibrations, in both releases.

The truth holds the analytic points in the vehicle frame; the links from pixels to cameras were made by the converter.
"""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from brickyard.ingest.contract import assert_source_ok, scene_digest
from brickyard.ingest.source import Missing, SceneRef
from brickyard.ingest.waymo import v1, v2
from brickyard.ingest.waymo.frame import CAMERAS, LASERS, Options
from brickyard.ingest.waymo.table import Table
from brickyard.shards.cameras import project
from brickyard.shards.errors import RawDataError
from brickyard.shards.scene import UNLABELLED, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

pytestmark = pytest.mark.real

SOURCES = {"v1_assembled": v1.SOURCE, "v2_assembled": v2.SOURCE}


@pytest.fixture(scope="module")
def scenes(samples: Path) -> dict[str, Scene]:
    found = {}
    for folder, source in SOURCES.items():
        (ref,) = source.plan(Store(samples / "waymo" / folder), Options(returns=1))
        assert isinstance(ref, SceneRef)
        found[folder] = source.read(ref)
    return found


@pytest.fixture(scope="module")
def truth(samples: Path) -> list[np.ndarray]:
    with np.load(samples / "waymo" / "truth_vehicle_frame_points.npz") as file:
        return [file[f"laser{number}"] for number in LASERS.values()]


@pytest.mark.parametrize("release", sorted(SOURCES))
def test_decoded_points_are_the_truth(scenes: dict[str, Scene], truth: list[np.ndarray], release: str) -> None:
    points = scenes[release].points
    assert points is not None and len(points) == sum(map(len, truth)) == 537_384
    parts = np.split(points.xyz, np.cumsum([len(part) for part in truth])[:-1])
    for name, part, expected in zip(LASERS, parts, truth, strict=True):
        worst = np.abs(part.astype(np.float64) - expected).max()
        print(f"{release} {name}: {len(part)} points, worst {worst:.2e} m")
        assert worst < 1e-4, name


def test_both_releases_give_the_same_scene(scenes: dict[str, Scene]) -> None:
    one, two = scenes["v1_assembled"], scenes["v2_assembled"]
    assert scene_digest(replace(one, identity=two.identity)) == scene_digest(two)
    assert one.points is not None and one.points.elongation is not None
    labels = one.points.semantic["waymo22"]
    assert 0 < (labels != UNLABELLED).sum() <= 157_895 and not (labels[157_895:] != UNLABELLED).any()  # TOP only
    assert one.identity.timestamp_ns == two.identity.timestamp_ns == 1_553_735_853_462_203_000
    assert [view.name for view in one.views] == list(CAMERAS)


def test_second_returns_of_both_releases(samples: Path) -> None:
    found = []
    for folder, source in SOURCES.items():
        (ref,) = source.plan(Store(samples / "waymo" / folder), Options(cameras=()))
        assert isinstance(ref, SceneRef)
        found.append(source.read(ref))
    assert scene_digest(replace(found[0], identity=found[1].identity)) == scene_digest(found[1])
    points = found[0].points
    assert points is not None and points.return_number is not None and points.return_count is not None
    assert (points.return_number == 1).sum() == 537_384 and (points.return_number == 2).sum() > 0
    assert ((points.return_count == 2) & (points.return_number == 1)).sum() == (points.return_number == 2).sum()


def test_rolling_shutters_of_a_parked_car(scenes: dict[str, Scene]) -> None:
    """All five real cameras read out from left to right in 44 ms; the car stands, so the shutter moves nothing."""
    for view in scenes["v1_assembled"].views:
        shutter = view.rolling_shutter
        assert shutter is not None and shutter.direction == "right" and 0.043 < shutter.readout_s < 0.045
        assert np.linalg.norm(shutter.velocity) < 0.02 and np.linalg.norm(shutter.angular_velocity) < 0.01


def test_panoptic_labels_of_the_real_pictures(samples: Path, scenes: dict[str, Scene]) -> None:
    """Class and instance put together again are the label's own pixels."""
    name = "[CameraSegmentationLabelComponent].panoptic_label"
    (file,) = (samples / "waymo" / "v2_assembled" / "camera_segmentation").iterdir()
    rows = {row["key.camera_name"]: row for row in pq.read_table(file).to_pylist()}
    for view in scenes["v1_assembled"].views:
        row = rows[CAMERAS[view.name]]
        values = np.asarray(Image.open(io.BytesIO(row[name]))).astype(int)
        classes = view.semantic["waymo_camera28"].astype(int) + 1  # UNLABELLED is class 0
        np.testing.assert_array_equal(classes * row[f"{name}_divisor"] + view.instance, values)
    front = scenes["v1_assembled"].views[0].semantic["waymo_camera28"]
    found = {taxonomy("waymo_camera28").classes[ident] for ident in np.unique(front) if ident != UNLABELLED}
    assert {"car", "road", "sky", "vegetation", "building"} <= found


def links(samples: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, 6) camera, x, y twice for the valid pixels of return 1, lasers in the order of their numbers."""
    found = []
    tables = [pq.read_table(samples / "waymo" / "v2_assembled" / name) for name in ("lidar", "lidar_camera_projection")]
    images, projections = ({row["key.laser_name"]: row for row in table.to_pylist()} for table in tables)
    for laser in LASERS.values():
        ranges = np.array(images[laser]["[LiDARComponent].range_image_return1.values"], np.float32).reshape(-1, 4)
        values = projections[laser]["[LiDARCameraProjectionComponent].range_image_return1.values"]
        found.append(np.array(values, np.float32).reshape(-1, 6)[ranges[:, 0] > 0])
    return np.concatenate(found)[:, :3], np.concatenate(found)[:, 3:]


def test_projection_meets_waymos_own_links(samples: Path, scenes: dict[str, Scene], truth: list[np.ndarray]) -> None:
    """The truth projected by our views, against the pixels of `lidar_camera_projection` (its camera stood still)."""
    xyz = np.concatenate(truth)
    first_and_second = links(samples)
    close = exact = total = 0
    for view in scenes["v2_assembled"].views:
        uv = project(xyz, view).uv
        for link in first_and_second:
            here = link[:, 0] == CAMERAS[view.name]
            distance = np.linalg.norm(uv[here] - link[here, 1:], axis=1)
            close += int((distance < 1).sum())
            exact += int((np.rint(uv[here]) == link[here, 1:]).all(axis=1).sum())
            total += int(here.sum())
    print(f"{total} links: {close / total:.4%} within 1 px, {exact / total:.2%} the same pixel")
    assert total > 100_000 and close / total > 0.9999
    assert exact / total > 0.8  # the rest is the fifth of a pixel between the frame's pose and the camera's own


def test_frames_made_for_other_tasks(samples: Path) -> None:
    """Real records: one with five empty lasers, one with neither images nor lasers."""
    items = list(v1.plan(Store(samples / "waymo" / "v1_real"), Options()))
    assert len(items) == 2
    for item in items:
        assert isinstance(item, SceneRef)
        with pytest.raises(RawDataError, match="no usable point"):
            v1.read(item)


def test_older_files_of_the_v2_release(samples: Path) -> None:
    """199 real poses in float32; the segment's lidar files are not there, which is said once."""
    store = Store(samples / "waymo" / "v2_real_old_schema")
    (missing,) = v2.plan(store, Options())
    assert isinstance(missing, Missing) and "lidar/" in missing.reason
    path = "vehicle_pose/10023947602400723454_1120_000_1140_000.parquet"
    fail = partial(RawDataError, dataset="waymo_v2", path=path)
    table = Table(store.size(path) or 0, partial(store.read_range, path), fail)
    (segment,) = table.segments()
    assert len(table.timestamps(segment)) == 199 and np.diff(table.timestamps(segment)).min() > 90_000


@pytest.mark.parametrize("release", sorted(SOURCES))
def test_real_frames_keep_the_promises(samples: Path, release: str) -> None:
    options = Options(cameras=("FRONT",), lasers=("TOP", "REAR"))
    assert_source_ok(SOURCES[release], str(samples / "waymo" / release), options, scenes=1)
