"""A Scene that breaks the contract says which promise, and in which scene."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from brickyard.shards.codecs import decode, encode_labels
from brickyard.shards.encode import SceneHeader, decode_scene, encode_scene
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import Scene
from tests.worlds import toy_scene


def scenes_differ(a: Any, b: Any) -> list[str]:
    """Paths at which two scenes differ, beyond the bounds of the codecs."""
    problems = []

    def walk(path: str, x: Any, y: Any) -> None:
        if hasattr(x, "__dataclass_fields__"):
            for name in x.__dataclass_fields__:
                walk(f"{path}.{name}", getattr(x, name), getattr(y, name))
        elif isinstance(x, dict):
            for name in x.keys() | y.keys():
                walk(f"{path}[{name}]", x.get(name), y.get(name))
        elif isinstance(x, tuple) and x and hasattr(x[0], "__dataclass_fields__"):
            for i, (u, v) in enumerate(zip(x, y, strict=True)):
                walk(f"{path}[{i}]", u, v)
        elif isinstance(x, np.ndarray):
            bound = {".points.xyz": 1 / 512, ".points.normal": 0.0117}.get(path, 0.0)
            bound = 1 / 1024 if path.endswith(".pairs.depth") else bound
            if (
                x.dtype != y.dtype
                or x.shape != y.shape
                or not np.allclose(x.astype(float), y.astype(float), rtol=0, atol=bound)
            ):
                problems.append(path)
        elif x != y:
            problems.append(path)

    walk("", a, b)
    return problems


@pytest.mark.parametrize("views", [0, 1, 3])
def test_a_scene_survives_encoding(views: int) -> None:
    scene = toy_scene(3, views=views)
    encoded = encode_scene(scene)
    header = SceneHeader(encoded.header)
    again = decode_scene(header, lambda name: decode(header.fields[name], encoded.blobs[name])).validate()
    assert scenes_differ(scene, again) == []
    assert encode_scene(scene) == encoded


def test_a_clip_has_no_points() -> None:
    scene = replace(toy_scene(1), points=None)
    scene = replace(scene, views=tuple(replace(view, pairs=None) for view in scene.views))
    encoded = encode_scene(scene)
    assert SceneHeader(encoded.header).points is None
    assert encoded.summary["n_points"] == 0


def test_a_view_that_sees_no_point_keeps_its_empty_pairs() -> None:
    scene = toy_scene(2)
    assert scene.views[0].pairs is not None
    none = {name: getattr(scene.views[0].pairs, name)[:0] for name in ("point", "pixel", "depth", "visible")}
    scene = _pairs(scene, **none)
    encoded = encode_scene(scene)
    header = SceneHeader(encoded.header)
    again = decode_scene(header, lambda name: decode(header.fields[name], encoded.blobs[name])).validate()
    assert again.views[0].pairs is not None
    assert len(again.views[0].pairs) == 0


def _points(scene: Scene, **change: Any) -> Scene:
    assert scene.points is not None
    return replace(scene, points=replace(scene.points, **change))


def _pairs(scene: Scene, **change: Any) -> Scene:
    view = scene.views[0]
    assert view.pairs is not None
    return replace(scene, views=(replace(view, pairs=replace(view.pairs, **change)), *scene.views[1:]))


def _broken() -> dict[str, Scene]:
    good = toy_scene(0)
    assert good.points is not None
    assert good.views[0].pairs is not None
    mirror = np.diag([1.0, 1, -1, 1])
    return {
        "points/xyz must be float32": _points(good, xyz=good.points.xyz.astype(np.float64)),
        "not finite": _points(good, xyz=np.full_like(good.points.xyz, np.inf)),
        "points/color": _points(good, color=good.points.color[:-1]),
        "points/normal has vectors": _points(good, normal=np.full_like(good.points.xyz, 0.9)),
        "intensity_unit": _points(good, intensity_unit=None),
        "points/semantic.nuscenes16": _points(good, semantic={"nuscenes16": np.zeros(3, np.int16)}),
        "world_from_scene is not a rigid": replace(good, world_from_scene=mirror),
        "scene_from_camera is not": replace(good, views=(replace(good.views[0], scene_from_camera=mirror),)),
        "strictly increasing": _pairs(good, point=good.views[0].pairs.point[::-1].copy()),
        "pixel leaves": _pairs(good, pixel=np.full_like(good.views[0].pairs.pixel, 999)),
        "point leaves": _pairs(good, point=good.views[0].pairs.point + np.int32(400)),
        "superpixels": replace(good, views=(replace(good.views[0], width=63, semantic={}, instance=None),)),
    }


@pytest.mark.parametrize("what", _broken())
def test_broken_promises_are_named(what: str) -> None:
    with pytest.raises(SceneError, match=what) as caught:
        _broken()[what].validate()
    assert "toy/scene-000" in str(caught.value)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-6, 3e-4, 5e-4, 1e-3, 1e-2])
def test_what_is_rigid_is_what_matrix_algebra_finds(noise: float) -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.normal(size=3) * 1e6
        pose += noise * rng.normal(size=(4, 4)) * (rng.random((4, 4)) < 0.3)
        if number % 20 == 0:
            pose[rng.integers(4), rng.integers(4)] = rng.choice([np.nan, np.inf, 1e200, -1e160, 0])
        with np.errstate(over="ignore", invalid="ignore"):
            rotation = pose[:3, :3]
            expected = (
                np.isfinite(pose).all()
                and np.allclose(pose[3], (0, 0, 0, 1))
                and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3)
                and np.linalg.det(rotation) > 0
            )
        scene = replace(toy_scene(0), world_from_scene=pose)
        if expected:
            scene.validate()
        else:
            with pytest.raises(SceneError, match="not a rigid"):
                scene.validate()


def test_labels_of_images_take_every_class() -> None:
    labels = np.array([[-1, 0, 32766], [254, 255, -1]], np.int16)
    blob, spec = encode_labels(labels)
    assert np.array_equal(decode(spec, blob), labels)
    assert decode(spec, blob).dtype == np.int16


def test_a_newer_header_is_refused_with_a_sentence() -> None:
    header = encode_scene(toy_scene(0)).header.replace(b'{"format":2', b'{"format":3')
    with pytest.raises(SceneError, match="update"):
        SceneHeader(header)
