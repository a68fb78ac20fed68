"""Small raw datasets, as corpora: what is predicted of them has to go back into their own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from brickyard.evaluate.predictions.targets import TARGETS
from brickyard.ingest.kitti import odometry
from brickyard.ingest.nuscenes import SOURCE as NUSCENES
from brickyard.ingest.s3dis import SOURCE as S3DIS
from brickyard.ingest.scannet import SOURCE as SCANNET
from brickyard.ingest.source import SceneRef, Source
from brickyard.ingest.waymo import v1, v2
from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.encode import encode_scene
from brickyard.shards.storage import Store
from tests.ingest import nuscenes_toy, scannet_toy, waymo_toy
from tests.ingest.test_s3dis import OBJECTS
from tests.ingest.test_s3dis import release as s3dis_release

SOURCES = {"scannet": SCANNET, "nuscenes": NUSCENES, "semantickitti": odometry.SOURCE, "s3dis": S3DIS,
           "waymo": v1.SOURCE, "waymo_v2": v2.SOURCE}  # fmt: skip


CALIBRATION = "".join(f"P{k}: 1 0 0 0 0 1 0 0 0 0 1 0\n" for k in range(4)) + "Tr: 0 -1 0 0 0 0 -1 0 1 0 0 0\n"


def write_raw(world: str, root: Path) -> Path:
    """The raw files of a dataset, with scenes of the validation split."""
    if world == "scannet":
        scannet_toy.release(root)
        (root / "scannetv2_val.txt").write_text(f"{scannet_toy.SCAN}\n")
    elif world == "nuscenes":
        write_nuscenes(root)
    elif world == "s3dis":
        s3dis_release(root, OBJECTS)
    elif world == "semantickitti":
        write_kitti(root)
    else:
        frames = [waymo_toy.toy_frame(number, labelled=number != 1) for number in range(3)]
        (waymo_toy.write_v1 if world == "waymo" else waymo_toy.write_v2)(root, frames, "validation")
    return root


def write_nuscenes(root: Path) -> None:
    """Both scenes of mini_val: two keyframes of the toy's scene, and the third as another."""
    nuscenes_toy.write_dataset(root, scene="scene-0103", keyframes=3, between=2)

    def cut(rows: list[dict[str, Any]]) -> None:
        rows[1]["next"], rows[2]["prev"], rows[2]["scene_token"] = "", "", "other"

    def add(rows: list[dict[str, Any]]) -> None:
        more = {"token": "other", "name": "scene-0916", "nbr_samples": 1}
        rows.append(rows[0] | more | {"first_sample_token": "s2", "last_sample_token": "s2"})
        rows[0] |= {"nbr_samples": 2, "last_sample_token": "s1"}

    nuscenes_toy.edit(root, "sample", cut)
    nuscenes_toy.edit(root, "scene", add)


def write_kitti(root: Path, sequences: tuple[str, ...] = ("00", "08", "11"), points: int = 240) -> None:
    """Two scans of each sequence: boxes of three raw classes and some points without one."""
    for sequence in sequences:
        folder = root / "sequences" / sequence
        for name in ("velodyne", "labels"):
            (folder / name).mkdir(parents=True)
        (folder / "calib.txt").write_text(CALIBRATION)
        (folder / "times.txt").write_text("0.0\n0.1\n")
        for frame in range(2):
            rng = np.random.default_rng((int(sequence), frame))
            kind = rng.integers(0, 4, points)
            records = rng.uniform((2, 2, -2, 0), (6, 6, 1, 1), (points, 4)).astype("<f4")
            records[:, 2] += 3 * kind
            raw = np.array([0, 252, 40, 71], "<u4")[kind] | (rng.integers(0, 9, points).astype("<u4") << 16)
            (folder / "velodyne" / f"{frame:06d}.bin").write_bytes(records.tobytes())
            if sequence != "11":
                (folder / "labels" / f"{frame:06d}.label").write_bytes(raw.tobytes())


def corpus_of(world: str, root: Path, folder: Path, **options: Any) -> Corpus:
    """The corpus of all scenes of a raw dataset."""
    source: Source = SOURCES[world]
    refs = [item for item in source.plan(Store(root), source.options(**options)) if isinstance(item, SceneRef)]
    store, fingerprint = Store(folder), {"world": world, "options": str(options)}
    build = fingerprint_digest(fingerprint)
    start_build(store, fingerprint)
    commit_task(store, 0, build, [encode_scene(source.read(ref)) for ref in refs], [])
    finish_build(store, 1, build, [], {})
    return Corpus.open(folder)


def drawn(corpus: Corpus, target: str, row: int) -> np.ndarray:
    """Classes for all points of a scene, many of them right where the truth is known."""
    rng, count = np.random.default_rng(row), int(corpus.points_per_scene[row])
    labels = TARGETS[target].taxonomy
    scene = corpus.scene(row)
    assert scene.points is not None
    predicted = rng.integers(0, 13, count).astype(np.int16)
    truth = scene.points.semantic.get(labels)
    return predicted if truth is None else np.where((truth >= 0) & (rng.random(count) < 0.6), truth, predicted)
