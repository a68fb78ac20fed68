"""Folders of .npy files as Pointcept's preprocessors write them: [dataset/]split/scene/{coord,color,normal,...}.npy.

`plan` lists folders and opens nothing: a scene is a folder with a coord.npy. `read` parses the arrays itself: a header
that numpy would write, a size that is the file's, numbers and nothing else. What the layout cannot say (taxonomy of
segment.npy, unit of strength, domain, licence) comes from options. Costs one copy of a scene.

| file | becomes |
|---|---|
| coord, color, normal (N, 3) | xyz, colour, normals; coordinates far from the origin are shifted |
| segment20, segment200, segment_<taxonomy>, segment | labels of scannet20, scannet200, <taxonomy>, option `taxonomy` |
| instance, from 0, -1 none | instance, from 1, 0 none |
| strength (N,) or (N, 1) | intensity in `strength_unit` |
| pose (4, 4) | world_from_scene |
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ingest.source import Missing, RawFiles, SceneRef, Source
from shards.errors import RecipeError, SceneError
from shards.scene import UNLABELLED, Domain, Float32, Float64, Identity, Points, Scene
from shards.storage import Store
from shards.taxonomy import taxonomy, taxonomy_names

DATASET = "pointcept"
MAX_DEPTH = 6
MAX_POINTS = 1 << 28
MAX_HEADER = 4096
FAR_M = 1000.0
"""Coordinates farther from the origin than this are shifted by whole metres; float32 is not exact enough there."""

SPLITS = {
    "train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test",
    "Area_1": "train", "Area_2": "train", "Area_3": "train", "Area_4": "train", "Area_5": "val", "Area_6": "train",
}  # fmt: skip
"""Folder -> split; areas are those of S3DIS, with its customary split."""

_SEGMENTS = {"segment20": "scannet20", "segment200": "scannet200"}
_PLAIN = ("coord", "color", "normal", "instance", "strength", "pose")
_TAXONOMY = re.compile(r"segment_([A-Za-z0-9][A-Za-z0-9_-]{0,60})")
_SCANNET = re.compile(r"(scene\d{4})_\d{2}")
_HEADER = re.compile(
    rb"\{ *'descr' *: *'([<>|=]?(?:f[248]|[iu][1248]))' *, *'fortran_order' *: *(True|False) *, "
    rb"*'shape' *: *\(([0-9, ]*)\) *,? *\} *\n?"
)


_KINDS = {"f": "floats", "iu": "whole numbers", "fiu": "numbers"}
Shape = tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class PointceptOptions:
    """What the folders do not say.

    Attributes:
        licence: SPDX id or LicenseRef of the dataset below the root.
        domain: "indoor", "outdoor", "object" or "video".
        version: release of the dataset, for the record.
        taxonomy: of segment.npy; without it, these labels are left out (and counted).
        strength_unit: "unit" (0..1), "byte" (0..255) or "raw".
        normal_source: how normals came to be.
        splits: folder name -> "train", "val", "test" or "none", instead of the usual names; other folders are "none".
    """

    licence: str = "LicenseRef-unknown"
    domain: Domain = "indoor"
    version: str = "1"
    taxonomy: str | None = None
    strength_unit: Literal["unit", "byte", "raw"] = "unit"
    normal_source: str = "pointcept"
    splits: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.domain not in get_args(Domain) or not (self.licence and self.version and self.normal_source):
            raise RecipeError(f"pointcept options: a text is empty, or domain is none of {', '.join(get_args(Domain))}")
        if self.strength_unit not in ("unit", "byte", "raw"):
            raise RecipeError(f"pointcept options: strength_unit is no {self.strength_unit!r}: unit, byte or raw")
        if unknown := set(self.splits.values()) - {"train", "val", "test", "none"}:
            raise RecipeError(f"pointcept options: no split {sorted(unknown)[0]!r}: train, val, test or none")


def plan(store: Store, options: PointceptOptions) -> Iterator[SceneRef | Missing]:
    """All scenes in the order of their paths; `RecipeError` if there are none.

    Yields a `Missing` for a folder that has arrays of a scene but no coord.npy.
    """
    empty = True
    for folder, sizes in _scene_folders(store, "", 0):
        empty = False
        if "coord.npy" not in sizes:
            reason = f"{folder} has {', '.join(sorted(sizes)[:3])} but no coord.npy"
            yield Missing(dataset=DATASET, scene_id=folder, reason=reason)
            continue
        split = next((name for name in folder.split("/")[:-1] if name in (options.splits or SPLITS)), None)
        files = {"points" if name == "coord.npy" else name.removesuffix(".npy"): f"{folder}/{name}" for name in sizes}
        yield SceneRef(
            dataset=DATASET,
            scene_id=folder,
            split="none" if split is None else (options.splits or SPLITS)[split],
            sequence=_sequence(folder, split),
            root=store.uri,
            files=files,
            details={
                "licence": options.licence, "domain": options.domain, "version": options.version,
                "taxonomy": options.taxonomy, "strength_unit": options.strength_unit,
                "normal_source": options.normal_source,
            },
            points_estimate=max(0, sizes["coord.npy"] - 128) // 12,
            bytes_estimate=sum(sizes.values()),
        )  # fmt: skip
    if empty:
        raise RecipeError(f"no scenes in {store.uri}: expected split/scene/coord.npy")


def _scene_folders(store: Store, folder: str, depth: int) -> Iterator[tuple[str, dict[str, int]]]:
    """(folder, name -> size of the arrays that are read) of every folder that has some."""
    if folder:
        arrays = {name: size for name, size in sorted(store.sizes(folder).items()) if _is_array(name)}
        if arrays:
            yield folder, arrays
            return
    if depth < MAX_DEPTH:
        for name in store.list(folder):
            if name.endswith("/") and not name.startswith("."):
                yield from _scene_folders(store, f"{folder}/{name[:-1]}" if folder else name[:-1], depth + 1)


def _is_array(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    known = stem in _PLAIN or stem in _SEGMENTS or stem == "segment" or _TAXONOMY.fullmatch(stem) is not None
    return known and dot + ending == ".npy"


def _sequence(folder: str, split: str | None) -> str:
    """ScanNet's rescans of a space, Waymo's frames of a drive and S3DIS' rooms of an area belong together."""
    above, _, name = folder.rpartition("/")
    if space := _SCANNET.fullmatch(name):
        return space[1]
    frames = split is not None and above.rpartition("/")[2] != split
    area = split is not None and split.startswith("Area_")
    return above if frames or area else folder


def read(ref: SceneRef) -> Scene:
    """Read the scene of a reference made by `plan`; raises `RawDataError` naming the file for whatever is wrong."""
    files, dropped = RawFiles(ref), Counter[str]()
    details = ref.details
    try:
        xyz, world_from_scene = _read_place(files)
        points = Points(
            xyz=xyz,
            color=_read_color(files, len(xyz)),
            normal=(normal := _read_normal(files, len(xyz), dropped)),
            normal_source=None if normal is None else details["normal_source"],
            intensity=(intensity := _read_strength(files, len(xyz))),
            intensity_unit=None if intensity is None else details["strength_unit"],
            semantic=dict(_read_segments(files, len(xyz), dropped)),
            instance=_read_instance(files, len(xyz)),
        )
    finally:
        files.store.close()
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=details["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=None, domain=details["domain"], licence=details["licence"],
            sources=files.sources(),
        ),
        world_from_scene=world_from_scene,
        points=points,
        dropped=dict(dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(ref.files["points"], str(problem)) from problem


def read_npy(files: RawFiles, role: str, shapes: Sequence[Shape], kinds: str) -> NDArray[Any]:
    """The array of a .npy file, in native byte order.

    Args:
        shapes: of which it must have one; None allows any length but 0.
        kinds: allowed kinds of dtype, of "f", "i", "u".

    Raises:
        RawDataError: another header, shape or size, or an array of objects.
    """
    path = files.ref.files[role]
    data = files.read(path)
    start = {1: 10, 2: 12, 3: 12}.get(data[6] if len(data) > 6 else 0, 0)
    if data[:6] != b"\x93NUMPY" or not start or len(data) < start:
        raise files.error(path, "is no .npy file of version 1 to 3", offset=0)
    length = int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start : start + length]) if length <= MAX_HEADER else None
    if header is None:
        raise files.error(path, "the header is not one of an array of numbers", offset=start,
                          hint="save it with numpy.save(path, array, allow_pickle=False)")  # fmt: skip
    dtype = np.dtype(header[1].decode())
    sizes = [int(text) for text in header[3].decode().split(",") if text.strip().isdigit()]
    if not any(_fits(sizes, shape) for shape in shapes) or dtype.kind not in kinds or max(sizes) > MAX_POINTS:
        wanted = " or ".join(str(tuple("N" if n is None else n for n in shape)).replace("'", "") for shape in shapes)
        raise files.error(path, f"holds {dtype} {tuple(sizes)}, expected {_KINDS[kinds]} {wanted}", offset=start)
    begin = start + length
    if len(data) - begin != math.prod(sizes) * dtype.itemsize:
        raise files.error(
            path, f"{math.prod(sizes) * dtype.itemsize} bytes must follow the header, {len(data) - begin} do",
            offset=begin, hint="the file is truncated; copy it again",
        )  # fmt: skip
    values = np.frombuffer(data, dtype, offset=begin).reshape(sizes, order="F" if header[2] == b"True" else "C")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _fits(sizes: Sequence[int], shape: Shape) -> bool:
    return len(sizes) == len(shape) and all(n > 0 if w is None else n == w for w, n in zip(shape, sizes, strict=True))


def _read_place(files: RawFiles) -> tuple[Float32, Float64]:
    """(xyz near the origin, world_from_scene)."""
    path = files.ref.files["points"]
    coord = read_npy(files, "points", [(None, 3)], "f")
    if not np.isfinite(coord).all() or np.abs(coord).max() > 1e9:
        raise files.error(path, "has coordinates that are not finite, or beyond a million kilometres")
    pose = np.eye(4)
    if "pose" in files.ref.files:
        pose = read_npy(files, "pose", [(4, 4)], "f").astype(np.float64)
        turn = pose[:3, :3]
        rigid = np.isfinite(pose).all() and np.abs(pose).max() < 1e12 and np.allclose(pose[3], (0, 0, 0, 1))
        if not rigid or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) <= 0:
            raise files.error(files.ref.files["pose"], "is no rigid transform (rotation and shift)")
    if np.abs(coord).max() > FAR_M:
        coord = coord.astype(np.float64)
        low, high = coord.min(axis=0), coord.max(axis=0)
        origin = np.rint([*(low + high)[:2] / 2, low[2]])
        coord = coord - origin
        pose = pose @ np.block([[np.eye(3), origin[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
    return coord.astype(np.float32), pose


def _read_color(files: RawFiles, count: int) -> NDArray[np.uint8] | None:
    if "color" not in files.ref.files:
        return None
    color = read_npy(files, "color", [(count, 3)], "fiu")
    if not (np.isfinite(color).all() and color.min() >= 0 and color.max() <= 255):
        raise files.error(files.ref.files["color"], "colours must lie in 0..255")
    colors: NDArray[np.uint8] = np.rint(color).astype(np.uint8)
    return colors


def _read_normal(files: RawFiles, count: int, dropped: Counter[str]) -> Float32 | None:
    """Unit vectors; what is shorter than a thousandth or not finite is no normal."""
    if "normal" not in files.ref.files:
        return None
    normal = read_npy(files, "normal", [(count, 3)], "f").astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(normal.astype(np.float64), axis=1, keepdims=True)
    lost = ~((length >= 1e-3) & np.isfinite(length))[:, 0]
    bent = ~lost & (np.abs(length[:, 0] - 1) > 1e-4)
    normal[bent] = (normal[bent] / length[bent]).astype(np.float32)
    if damaged := int((lost & (normal != 0).any(axis=1)).sum()):
        dropped["invalid normal"] = damaged
    normal[lost] = 0
    return normal


def _read_strength(files: RawFiles, count: int) -> Float32 | None:
    if "strength" not in files.ref.files:
        return None
    strength = read_npy(files, "strength", [(count,), (count, 1)], "fiu").reshape(count)
    with np.errstate(over="ignore"):
        values = strength.astype(np.float32)
    if not np.isfinite(values).all():
        raise files.error(files.ref.files["strength"], "has values that are not finite")
    return values


def _read_segments(files: RawFiles, count: int, dropped: Counter[str]) -> Iterator[tuple[str, NDArray[np.int16]]]:
    """(taxonomy, class ids); of several labels of a point (ScanNet++) the first is the one of the smallest object."""
    for role in files.ref.files:
        if not role.startswith("segment"):
            continue
        named = _TAXONOMY.fullmatch(role)
        name = files.ref.details["taxonomy"] if role == "segment" else named[1] if named else _SEGMENTS[role]
        if name is None:
            dropped["labels without a taxonomy"] = count
            continue
        labels = read_npy(files, role, [(count,), (count, None)], "iu").reshape(count, -1)
        classes = len(taxonomy(name).classes) if name in taxonomy_names() else 2**15
        if not (labels.min() >= UNLABELLED and labels.max() < classes):
            raise files.error(
                files.ref.files[role], f"labels {labels.min()}..{labels.max()} leave -1..{classes - 1} of {name}",
                hint="-1 is unlabelled; give the taxonomy of segment.npy by the option `taxonomy`",
            )  # fmt: skip
        if further := int((labels[:, 1:] != UNLABELLED).sum()):
            dropped[f"further labels of {name}"] = further
        yield name, labels[:, 0].astype(np.int16)


def _read_instance(files: RawFiles, count: int) -> NDArray[np.int32] | None:
    if "instance" not in files.ref.files:
        return None
    instance = read_npy(files, "instance", [(count,), (count, None)], "iu").reshape(count, -1)
    if not (instance.min() >= -1 and instance.max() < 2**31 - 1):
        raise files.error(files.ref.files["instance"], "instances must be whole numbers from -1")
    return (instance[:, 0].astype(np.int64) + 1).astype(np.int32)


SOURCE = Source(dataset=DATASET, options=PointceptOptions, plan=plan, read=read)
"""Scenes of Pointcept's folder layout."""
