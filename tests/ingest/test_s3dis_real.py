"""The S3DIS reader on a real room, against an independent parse."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from brickyard.ingest.s3dis import SOURCE
from brickyard.ingest.s3dis.plan import S3DISOptions
from brickyard.ingest.source import SceneRef
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy

pytestmark = pytest.mark.real
RELEASE = "s3dis/Stanford3dDataset_v1.2_Aligned_Version"


def only(root: Path) -> SceneRef:
    (ref,) = SOURCE.plan(Store(root), S3DISOptions())
    assert isinstance(ref, SceneRef)
    return ref


@pytest.fixture(scope="module")
def room(samples: Path) -> Scene:
    return SOURCE.read(only(samples / RELEASE))


def test_counts_of_the_storage_room(samples: Path, room: Scene) -> None:
    assert abs(only(samples / RELEASE).points_estimate - 175_538) < 20_000
    points = room.points
    assert points is not None and points.instance is not None and len(points) == 175_538
    assert not room.dropped and room.identity.split == "val"
    assert sorted(set(points.instance.tolist())) == list(range(1, 13))
    counts = np.bincount(points.semantic["s3dis13"], minlength=13)
    named = dict(zip(taxonomy("s3dis13").classes, counts.tolist(), strict=True))
    assert {name: count for name, count in named.items() if count} == {
        "ceiling": 12_323, "floor": 24_294, "wall": 65_647, "door": 25_388, "clutter": 47_886,
    }  # fmt: skip


def test_values_equal_an_independent_parse(samples: Path, room: Scene) -> None:
    folder = samples / RELEASE / room.identity.scene_id / "Annotations"
    names = sorted(path.name for path in folder.iterdir())
    tables = [np.loadtxt(folder / name) for name in names]
    rows = np.concatenate(tables)
    points = room.points
    assert points is not None
    np.testing.assert_array_equal(points.color, rows[:, 3:])
    world = points.xyz.astype(np.float64) + room.world_from_scene[:3, 3]
    assert np.abs(world - rows[:, :3]).max() < 1e-6
    np.testing.assert_array_equal(points.instance, np.repeat(np.arange(1, 13), [len(table) for table in tables]))
    assert np.abs(points.xyz).max() < 5 and points.xyz[:, 2].min() > -0.51
    floor = points.semantic["s3dis13"] == 1
    assert np.median(points.xyz[floor, 2]) < 0.2 + points.xyz[:, 2].min()


def test_two_million_points_parse_in_seconds(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Area_5/hall_1/Annotations"
    folder.mkdir(parents=True)
    text = (samples / RELEASE / "Area_5/storage_3/Annotations/wall_1.txt").read_bytes()
    (folder / "wall_1.txt").write_bytes(text * 80)
    begin = time.process_time()
    points = SOURCE.read(only(tmp_path)).points
    assert points is not None and len(points) == 80 * 25_041
    assert time.process_time() - begin < 10
