"""The real samples of three datasets, through everything, by the commands of the README."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from brickyard.shards.corpus import Corpus
from brickyard.shards.stream import Stream
from tests.infra.test_build import brickyard

pytestmark = pytest.mark.real

RECIPE = """
name: samples
sources:
  - {{dataset: scannet, root: {samples}/scannet, options: {{frames_every: 1}}}}
  - {{dataset: nuscenes, root: {samples}/nuscenes}}
  - {{dataset: kitti_object, root: {samples}/kitti/object}}
  - {{dataset: kitti_raw, root: {samples}/kitti/raw}}
shards: {{target_mib: 16}}
train:
  split: null
  objective:
    name: stslidr
    student: {{network: tiny, inputs: [height, range]}}
    crop: {{height: 64, width: 96, min_pairs: 128}}
    views: 1
    pixel_stride: 4
  steps: 20
  batch: 1
  lr: 0.05
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    home = tmp_path_factory.mktemp("samples")
    (home / "recipe.yaml").write_text(RECIPE.format(samples=samples))
    code, result, text = brickyard(home, "build", "recipe.yaml", "--out", "corpus", "--allow-quarantined", "1")
    assert code == 0, text
    (lost,) = result["quarantined"]
    assert lost["key"] == "kitti_raw/2011_09_26_drive_0052_sync/0000000002"
    return home


def test_one_recipe_builds_all_samples_into_one_corpus(home: Path) -> None:
    corpus = Corpus.open(home / "corpus")
    assert Counter(key.split("/")[0] for key in corpus.keys) == {
        "scannet": 2, "nuscenes": 1, "kitti_object": 2, "kitti_raw": 3,
    }  # fmt: skip
    code, report, _ = brickyard(home, "verify", "corpus", "--deep")
    assert (code, report["problems"]) == (0, [])
    assert json.loads(corpus.index.column("dropped")[corpus.row("scene0000_00")].as_py())["invalid pose"] == 1


def test_error_bounds_hold_on_real_scans(home: Path, samples: Path) -> None:
    """Against the raw bytes, parsed here."""
    corpus = Corpus.open(home / "corpus")
    scan = np.fromfile(samples / "kitti/object/training/velodyne/000000.bin", "<f4").reshape(-1, 4)
    points = corpus.scene("kitti_object/training/000000").points
    assert points is not None
    assert points.intensity is not None
    assert np.abs(points.xyz.astype(float) - scan[:, :3]).max() <= 0.0025
    assert np.array_equal(points.intensity, scan[:, 3])
    mesh = (samples / "scannet/scans/scene0000_00/scene0000_00_vh_clean_2.ply").read_bytes()
    start = mesh.index(b"end_header\n") + len(b"end_header\n")
    vertices = np.frombuffer(mesh, "<f4,<f4,<f4,u1,u1,u1,u1", count=81369, offset=start)
    room = corpus.scene("scannet/scene0000_00").points
    assert room is not None
    assert np.abs(room.xyz - np.stack([vertices[f"f{i}"] for i in range(3)], 1).astype(float)).max() <= 0.0005
    assert np.array_equal(room.color, np.stack([vertices[f"f{i}"] for i in range(3, 6)], 1))


def test_the_stream_delivers_every_scene_once(home: Path) -> None:
    corpus = Corpus.open(home / "corpus")
    seen = [sample.key for items in Stream(corpus, ("*",), batch=3, epochs=1) for sample in items]
    assert sorted(seen) == sorted(corpus.keys)


def test_training_steps_run_on_it(home: Path) -> None:
    code, summary, text = brickyard(home, "train", "recipe.yaml", "--corpus", "corpus", "--out", "run")
    assert code == 0, text
    assert summary["steps"] == 20
    lines = [json.loads(line) for line in (home / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_pages_are_made(home: Path) -> None:
    code, _, text = brickyard(home, "show", "corpus", "nuscenes/", "--out", "page.html")
    assert code == 0, text
    assert (home / "page.html").stat().st_size > 100_000
