"""The sparse U-Net as student: intensities in the published scale, which its batch norms see the effect of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from brickyard.shards.build import commit_task, fingerprint_digest, finish_build, start_build
from brickyard.shards.corpus import Corpus
from brickyard.shards.documents import write_document
from brickyard.shards.encode import encode_scene
from brickyard.shards.errors import BrickyardError
from brickyard.shards.scene import Scene
from brickyard.shards.storage import Store
from brickyard.shards.stream import Stream
from brickyard.train.clouds import Cloud, join_clouds, point_features
from brickyard.train.files import write_digests
from brickyard.train.objectives import SLidR
from brickyard.train.students.export import SETTINGS, WEIGHTS, export_student, load_student
from brickyard.train.students.unet import UNetConfig, UNetStudent
from brickyard.train.voxels import cells
from tests.train.minkowski import convolve, field_of, rows_of
from tests.train.rings import ring_scene


def read(folder: Path, student: UNetStudent, **changes: Any) -> tuple[Cloud, Scene]:
    """A scene as the student reads it from a corpus, and as it was before; `changes` are of its points."""
    scene = ring_scene(0)
    assert scene.points is not None
    dataset = changes.pop("dataset", "rings")
    scene = replace(scene, points=replace(scene.points, **changes), identity=replace(scene.identity, dataset=dataset))
    store, build = Store(folder), fingerprint_digest({})
    start_build(store, {})
    commit_task(store, 0, build, [encode_scene(scene)], [])
    finish_build(store, 1, build, [], {})
    stream = Stream(
        Corpus.open(folder),
        student.fields,
        batch=1,
        epochs=1,
        threads=1,
        prepare=lambda sample, rng: student.read(sample),
    )
    ((cloud,),) = list(stream)
    return cloud, scene


def intensities(scene: Scene) -> NDArray[np.float32]:
    assert scene.points is not None and scene.points.intensity is not None
    return scene.points.intensity


def first_norm(student: UNetStudent, cloud: Cloud) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """(outputs of the first batch norm in training, the points that speak, their cells)."""
    seen: list[torch.Tensor] = []
    handle = student.network.stem.norm.register_forward_hook(lambda _m, _i, out: seen.append(out.detach()))
    clouds = join_clouds([cloud], student.inputs, "cpu")
    _, voxels = student(clouds)
    handle.remove()
    chosen = voxels.representative
    return seen[0].numpy(), chosen.numpy(), cells(clouds.xyz, student.config.voxels)[chosen].numpy()


def published_norm(student: UNetStudent, bytes_: NDArray[np.float32], where: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same by the public recipe: raw bytes, a convolution over occupied neighbours, statistics of this batch."""
    kernel = student.network.stem.convolution.weight.detach().double().numpy()  # (outputs, x, y, z, inputs)
    flat = kernel.transpose(3, 2, 1, 4, 0).reshape(27, 1, -1)
    out = rows_of(convolve(field_of(where, bytes_[:, None]), flat, 1), where)
    norm = student.network.stem.norm
    scale, shift = norm.weight.detach().numpy(), norm.bias.detach().numpy()
    result: NDArray[np.float64] = (out - out.mean(0)) / np.sqrt(out.var(0) + 1e-5) * scale + shift
    return result


def test_the_first_batch_norm_sees_what_it_sees_in_the_public_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = UNetStudent(UNetConfig(network="tiny")).train()
    cloud, scene = read(tmp_path / "a", student)
    assert np.array_equal(cloud.values["intensity"].numpy()[:, 0], intensities(scene))
    got, chosen, where = first_norm(student, cloud)
    expected = published_norm(student, intensities(scene)[chosen], where)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    # Inputs of 0..1 instead: the same network shrinks them.
    unit = UNetStudent(replace(student.config, intensity="unit")).train()
    unit.load_state_dict(student.state_dict())
    dark = {"intensity": intensities(scene) * np.float32(0.1)}  # most of nuScenes' are below 30
    shrunk = []
    for config in (unit, student):
        cloud, scene = read(tmp_path / config.config.intensity, config, **dark)
        got, chosen, where = first_norm(config, cloud)
        shrunk.append(got.std(0) / published_norm(student, intensities(scene)[chosen], where).std(0))
    assert shrunk[0].max() < 0.99 and shrunk[0].min() < 0.95
    np.testing.assert_allclose(shrunk[1], 1, atol=1e-3)


@pytest.mark.parametrize(
    ("scale", "unit", "dataset", "expected"),
    [
        ("published", "byte", "nuscenes", lambda v: v),
        ("published", "unit", "kitti_odometry", lambda v: v / 255 + 1),
        ("unit", "byte", "nuscenes", lambda v: v / 255),
        ("unit", "unit", "kitti_odometry", lambda v: v / 255),
        ("published", "raw", "waymo_v2", np.tanh),
        ("unit", "raw", "waymo_v2", np.tanh),
    ],
)
def test_scales(tmp_path: Path, scale: Literal["published", "unit"], unit: str, dataset: str, expected: Any) -> None:
    student = UNetStudent(UNetConfig(network="tiny", intensity=scale))
    raw = intensities(ring_scene(0))
    stored = raw / np.float32(255) if unit == "unit" else raw
    cloud, _ = read(tmp_path, student, intensity=stored, intensity_unit=unit, dataset=dataset)
    features = point_features(join_clouds([cloud], student.inputs, "cpu"), student.inputs)
    np.testing.assert_allclose(features.numpy()[:, 0], expected(raw), rtol=1e-6)


def test_a_scale_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    student = UNetStudent(UNetConfig(network="tiny"))
    with pytest.raises(BrickyardError, match=r"intensity in unit 'raw', this student needs one of \['byte', 'unit'\]"):
        read(tmp_path, student, intensity_unit="raw")
    with pytest.raises(ValueError, match="published"):
        UNetConfig(network="tiny", intensity="raw")  # type: ignore[arg-type]


def test_older_exports_keep_the_scale_they_were_trained_with(tmp_path: Path) -> None:
    student = UNetStudent(UNetConfig(network="tiny", intensity="unit"))
    export_student(student, tmp_path)
    assert load_student(tmp_path).config == student.config
    table = {"kind": "sparse_unet", "network": "tiny", "inputs": ["intensity"]}
    voxels = {"kind": "cylindrical", "size": [0.1, 1.0, 0.1]}
    (tmp_path / SETTINGS).unlink()
    write_document(tmp_path / SETTINGS, {**table, "voxels": voxels})
    write_digests(tmp_path, (WEIGHTS, SETTINGS))
    assert load_student(tmp_path).config.intensity == "unit"
    assert UNetConfig().intensity == SLidR().student.intensity == "published"
