"""The promises of a Scene, checked: shapes, dtypes, ranges, finite values, rigid poses, pairs inside their images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from brickyard.shards.annotations import annotation_bytes
from brickyard.shards.errors import SceneError
from brickyard.shards.lenses import LENSES
from brickyard.shards.scene import (
    Correspondences,
    DepthAxis,
    Domain,
    Float32,
    Part,
    Points,
    ReadoutDirection,
    RollingShutter,
    Scene,
    View,
)

_FIGURE = re.compile(r"[a-z][a-z0-9_]{0,39}")


def check_scene(scene: Scene) -> None:
    """Raise `SceneError` naming the first broken promise of the contract in `shards.scene`."""
    check = _Checker(scene.identity.key)
    check.that(scene.identity.domain in get_args(Domain), f"unknown domain {scene.identity.domain!r}")
    check.that(_is_time(scene.identity.timestamp_ns), "timestamp_ns must be an int or None")
    check.rigid("world_from_scene", scene.world_from_scene)
    if scene.annotations != {}:
        try:
            annotation_bytes(scene.annotations)
        except ValueError as problem:
            check.that(False, str(problem))
    for name, value in scene.figures.items():
        check.that(isinstance(name, str) and bool(_FIGURE.fullmatch(name)), f"a figure cannot be called {name!r}")
        check.that(
            type(value) is float and math.isfinite(value), f"figure {name} must be a finite float, found {value!r}"
        )
    if scene.part is not None:
        _validate_part(check, scene.part)
    if scene.points is not None:
        _validate_points(check, scene.points)
    for number, view in enumerate(scene.views):
        _validate_view(check, f"views/{number} ({view.name})", view, 0 if scene.points is None else len(scene.points))


def _is_time(value: object) -> bool:
    return value is None or (type(value) is int and -(2**63) <= value < 2**63)


class _Checker:
    def __init__(self, scene: str) -> None:
        self.scene = scene

    def that(self, holds: bool, what: str) -> None:
        if not holds:
            raise SceneError(f"scene {self.scene}: {what}")

    def array(self, name: str, value: Any, dtypes: tuple[Any, ...], shape: tuple[int | None, ...]) -> None:
        fits = (
            isinstance(value, np.ndarray)
            and value.dtype in dtypes
            and value.ndim == len(shape)
            and all(want is None or want == got for want, got in zip(shape, value.shape, strict=True))
        )
        if not fits:
            found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            expected = " or ".join(np.dtype(d).name for d in dtypes)
            self.that(False, f"{name} must be {expected} with shape {shape}, found {found}")

    def rigid(self, name: str, value: Any) -> None:
        self.array(name, value, (np.float64,), (4, 4))
        self.that(_is_rigid(value.tolist()), f"{name} is not a rigid transform (orthonormal, determinant +1, finite)")


def _is_rigid(rows: list[list[float]]) -> bool:
    """Whether a (4, 4) is a rotation (within 0.001) and a move. In plain floats: sixteen numbers cost numpy 0.1 ms."""
    if not all(math.isfinite(value) for row in rows for value in row):
        return False
    x, y, z = (row[:3] for row in rows[:3])
    lengths = (_dot(x, x), _dot(y, y), _dot(z, z))
    across = (_dot(x, y), _dot(x, z), _dot(y, z))
    turned = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    return (
        all(abs(value) <= 1e-8 for value in rows[3][:3])
        and abs(rows[3][3] - 1) <= 1e-8 + 1e-5
        and all(abs(value - 1) <= 1e-3 + 1e-5 for value in lengths)
        and all(abs(value) <= 1e-3 for value in across)
        and _dot(turned, z) > 0
    )


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _validate_part(check: _Checker, part: Part) -> None:
    check.that(bool(part.whole), "part/whole is empty")
    for name in ("core_min", "core_max"):
        check.array(f"part/{name}", getattr(part, name), (np.float64,), (3,))
    check.that(bool((part.core_min < part.core_max).all()), "part/core_min must lie below core_max")


def _validate_points(check: _Checker, points: Points) -> None:
    n = len(points.xyz)
    check.array("points/xyz", points.xyz, (np.float32,), (n, 3))
    check.that(bool(np.isfinite(points.xyz).all()), "points/xyz has values that are not finite")
    optional: list[tuple[str, Any, tuple[Any, ...], tuple[int | None, ...]]] = [
        ("color", points.color, (np.uint8,), (n, 3)),
        ("normal", points.normal, (np.float32,), (n, 3)),
        ("intensity", points.intensity, (np.float32,), (n,)),
        ("ring", points.ring, (np.uint8, np.uint16), (n,)),
        ("time_offset", points.time_offset, (np.float32,), (n,)),
        ("sweep", points.sweep, (np.uint8,), (n,)),
        ("return_number", points.return_number, (np.uint8,), (n,)),
        ("return_count", points.return_count, (np.uint8,), (n,)),
        ("elongation", points.elongation, (np.float32,), (n,)),
        ("instance", points.instance, (np.int32,), (n,)),
    ]
    for name, value, dtypes, shape in optional:
        if value is not None:
            check.array(f"points/{name}", value, dtypes, shape)
            if value.dtype.kind == "f":
                check.that(bool(np.isfinite(value).all()), f"points/{name} has values that are not finite")
    for taxonomy, labels in points.semantic.items():
        check.array(f"points/semantic.{taxonomy}", labels, (np.int16,), (n,))
    if points.normal is not None and n:
        check.that(_unit_or_zero(points.normal), "points/normal has vectors that are neither unit length nor zero")
        check.that(points.normal_source is not None, "points/normal needs normal_source")
    check.that(points.intensity is None or points.intensity_unit is not None, "points/intensity needs intensity_unit")


def _unit_or_zero(vectors: Float32) -> bool:
    """Whether all of the vectors (N, 3) have a length of 1 (within 0.001) or 0."""
    x, y, z = (vectors[:, axis] for axis in range(3))
    square = x * x + y * y + z * z
    if square.min() > 0.9985 and square.max() < 1.0015:
        return True
    length = np.sqrt(square)
    return bool(((np.abs(length - 1) < 1e-3) | (length == 0)).all())


def _validate_view(check: _Checker, name: str, view: View, point_count: int) -> None:
    check.that(view.width > 0 and view.height > 0 and max(view.width, view.height) < 65536, f"{name}: bad image size")
    check.that(len(view.image) > 0, f"{name}: empty image")
    check.array(f"{name}/intrinsics", view.intrinsics, (np.float64,), (3, 3))
    check.that(bool(np.isfinite(view.intrinsics).all()), f"{name}/intrinsics has values that are not finite")
    check.that(_is_time(view.timestamp_ns), f"{name}: timestamp_ns must be an int or None")
    check.that(all(map(math.isfinite, view.distortion)), f"{name}: distortion has values that are not finite")
    if (values := LENSES[view.camera_model].values) is not None:
        found = f"{name}: distortion has {len(view.distortion)} values"
        check.that(len(view.distortion) == values, f"{found}, the model {view.camera_model} has {values}")
    if view.scene_from_camera is not None:
        check.rigid(f"{name}/scene_from_camera", view.scene_from_camera)
    if view.depth is not None:
        check.array(f"{name}/depth", view.depth.values, (np.uint16,), (None, None))
        check.array(f"{name}/depth/intrinsics", view.depth.intrinsics, (np.float64,), (3, 3))
        check.that(bool(np.isfinite(view.depth.intrinsics).all()), f"{name}/depth/intrinsics is not finite")
        check.that(0 < view.depth.scale < math.inf, f"{name}/depth needs a positive scale")
        check.that(view.depth.along in get_args(DepthAxis), f"{name}/depth: along is {view.depth.along!r}")
    if view.rolling_shutter is not None:
        _validate_shutter(check, f"{name}/rolling_shutter", view.rolling_shutter)
    for taxonomy, labels in view.semantic.items():
        check.array(f"{name}/semantic.{taxonomy}", labels, (np.int16,), (view.height, view.width))
    if view.instance is not None:
        check.array(f"{name}/instance", view.instance, (np.int32,), (view.height, view.width))
    if view.superpixels is not None:
        check.array(f"{name}/superpixels", view.superpixels.labels, (np.uint16,), (view.height, view.width))
    if view.pairs is not None:
        _validate_pairs(check, f"{name}/pairs", view, view.pairs, point_count)


def _validate_shutter(check: _Checker, name: str, shutter: RollingShutter) -> None:
    check.that(shutter.direction in get_args(ReadoutDirection), f"{name} has no direction {shutter.direction!r}")
    check.that(0 < shutter.readout_s < 10, f"{name} needs a read-out time of less than 10 s")
    for motion in ("velocity", "angular_velocity"):
        check.array(f"{name}/{motion}", getattr(shutter, motion), (np.float64,), (3,))
        check.that(bool(np.isfinite(getattr(shutter, motion)).all()), f"{name}/{motion} is not finite")


def _validate_pairs(check: _Checker, name: str, view: View, pairs: Correspondences, point_count: int) -> None:
    count = len(pairs.point)
    check.array(f"{name}/point", pairs.point, (np.int32,), (count,))
    check.array(f"{name}/pixel", pairs.pixel, (np.uint16,), (count, 2))
    check.array(f"{name}/depth", pairs.depth, (np.float32,), (count,))
    check.array(f"{name}/visible", pairs.visible, (np.bool_,), (count,))
    if count:
        rising = bool((np.diff(pairs.point) > 0).all())
        check.that(rising, f"{name}/point is not strictly increasing")
        check.that(pairs.point[0] >= 0 and pairs.point[-1] < point_count, f"{name}/point leaves 0..{point_count - 1}")
        inside = bool((pairs.pixel < (view.width, view.height)).all())
        check.that(inside, f"{name}/pixel leaves the {view.width}x{view.height} image")
