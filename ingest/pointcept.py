"""Folders of .npy files as Pointcept's preprocessors write them: [dataset/]split/scene/{coord,color,normal,...}.npy.

`plan` lists folders and opens nothing: a scene is a folder with a coord.npy. `read` parses the arrays itself (see
`ingest.npy`). What the layout cannot say (name of the dataset, taxonomy of segment.npy, unit of strength beyond 0..1,
domain, licence) comes from options; what is not read is counted by name. Costs one copy of a scene.

The files have no checksum. Points whose coordinates stand in a lost block are dropped; such runs of zeros in other
arrays, where zeros may be values, are counted. Labels of class 0 in a place where a block of class 0 was lost, and a
file exchanged with that of a scene of as many points, cannot be told.

| file | becomes |
|---|---|
| coord, color, normal (N, 3) | xyz, colour, normals; coordinates far from the origin are shifted |
| segment20, segment200, segment_<taxonomy>, segment | labels of scannet20, scannet200, <taxonomy>, option `taxonomy` |
| instance, from 0, -1 none | instance, from 1, 0 none |
| strength (N,) or (N, 1) | intensity in `strength_unit` |
| pose (4, 4) | world_from_scene |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.blank import PAGE
from brickyard.ingest.npy import lost_rows, read_npy, whole_pages
from brickyard.ingest.source import CALLED, Missing, Notice, RawFiles, SceneRef, Source
from brickyard.shards.errors import RecipeError, SceneError
from brickyard.shards.scene import UNLABELLED, Domain, Float32, Float64, Identity, Points, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy, taxonomy_names

DATASET = "pointcept"
MAX_EXTENT_M = {"indoor": 500.0, "outdoor": 10_000.0, "object": 500.0, "video": 10_000.0}
"""Half of what a scene of a domain may span; beyond it the numbers are no metres, or the domain is another."""
FAR_M = 1000.0
"""Coordinates farther from the origin than this are shifted by whole metres; float32 is not exact enough there."""

SPLITS = {
    "train": "train", "training": "train", "val": "val", "validation": "val", "test": "test", "testing": "test",
    "Area_1": "train", "Area_2": "train", "Area_3": "train", "Area_4": "train", "Area_5": "val", "Area_6": "train",
}  # fmt: skip
"""Folder -> split; areas are those of S3DIS, with its customary split."""

DATA = (".npy", ".npz", ".pth", ".pt", ".pkl", ".h5", ".ply", ".pcd", ".bin")
"""Suffixes of data; such a file is read or named."""

_SEGMENTS = {"segment20": "scannet20", "segment200": "scannet200"}
_PLAIN = ("coord", "color", "normal", "instance", "strength", "pose")
_TAXONOMY = re.compile(r"segment_([A-Za-z0-9][A-Za-z0-9_-]{0,60})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
_SCANNET = re.compile(r"(scene\d{4})_\d{2}")


@dataclass(frozen=True, kw_only=True)
class PointceptOptions:
    """What the folders do not say.

    Attributes:
        dataset: what the dataset is called in the corpus, such as "scannet"; a name of letters, digits, _ and -.
        licence: SPDX id or LicenseRef of the dataset below the root.
        domain: "indoor", "outdoor", "object" or "video".
        version: release of the dataset, for the record.
        taxonomy: of segment.npy; without it, these labels are left out (and counted).
        strength_unit: "unit" (0..1), "byte" (0..255) or "raw"; without it, floats within 0..1 are "unit", and a scene
            with others is refused.
        normal_source: how normals came to be.
        splits: folder name -> "train", "val", "test" or "none", instead of the usual names; other folders are "none".
    """

    dataset: str = DATASET
    licence: str = "LicenseRef-unknown"
    domain: Domain = "indoor"
    version: str = "1"
    taxonomy: str | None = None
    strength_unit: Literal["unit", "byte", "raw"] | None = None
    normal_source: str = "pointcept"
    splits: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.dataset):
            raise RecipeError(f"pointcept options: dataset {self.dataset!r} is no name of letters, digits, _ and -")
        if self.domain not in get_args(Domain) or not (self.licence and self.version and self.normal_source):
            raise RecipeError(f"pointcept options: a text is empty, or domain is none of {', '.join(get_args(Domain))}")
        if self.strength_unit not in (None, "unit", "byte", "raw"):
            raise RecipeError(f"pointcept options: strength_unit is no {self.strength_unit!r}: unit, byte or raw")
        if unknown := set(self.splits.values()) - {"train", "val", "test", "none"}:
            raise RecipeError(f"pointcept options: no split {sorted(unknown)[0]!r}: train, val, test or none")


def plan(store: Store, options: PointceptOptions) -> Iterator[SceneRef | Missing]:
    """All scenes in the order of their paths; `RecipeError` if there are none.

    Yields a `Missing` for a folder that has arrays of a scene but no coord.npy, and a `Notice` for one that has other
    data, such as the pickled .pth files of early releases.
    """
    empty = True
    for folder, sizes, others in _folders(store):
        if not sizes:
            reason = f"{len(others)} files not used, such as {others[0]!r}: expected folders split/scene with coord.npy"
            yield Notice(dataset=options.dataset, scene_id=folder or ".", reason=reason)
            continue
        empty = False
        if "coord.npy" not in sizes:
            reason = f"{folder} has {', '.join(sorted(sizes)[:3])} but no coord.npy"
            yield Missing(dataset=options.dataset, scene_id=folder, reason=reason)
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
                "normal_source": options.normal_source, "dropped": {f"{name}: not read": 1 for name in others},
                **({} if options.dataset == DATASET else {CALLED: options.dataset}),
            },
            points_estimate=max(0, sizes["coord.npy"] - 128) // 12,
            bytes_estimate=sum(sizes.values()),
        )  # fmt: skip
    if empty:
        raise RecipeError(f"no scenes in {store.uri}: expected split/scene/coord.npy")


def _folders(store: Store) -> Iterator[tuple[str, dict[str, int], list[str]]]:
    """(folder, name -> size of the arrays that are read, names of other data) of every folder that has some."""
    found: dict[str, list[str]] = {}
    for path in store.walk():
        folder, _, name = path.rpartition("/")
        if not any(part.startswith(".") for part in path.split("/")):
            found.setdefault(folder, []).append(name)
    scene = None
    for folder in sorted(found, key=lambda folder: folder.split("/")):
        if scene is not None and folder.startswith(f"{scene}/"):
            continue  # whatever a scene keeps in folders of its own
        others = [name for name in found[folder] if name.lower().endswith(DATA)]
        sizes = store.sizes(folder) if folder and any(map(_is_array, others)) else {}
        arrays = {name: sizes[name] for name in others if name in sizes and _is_array(name)}
        scene = folder if arrays else scene
        if others:
            yield folder, arrays, [name for name in others if name not in arrays]


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
        xyz, world_from_scene, lost = _read_place(files)
        points = Points(
            xyz=xyz,
            color=_read_color(files, len(xyz), dropped),
            normal=(normal := _read_normal(files, len(xyz), dropped)),
            normal_source=None if normal is None else details["normal_source"],
            intensity=(intensity := _read_strength(files, len(xyz), dropped)),
            intensity_unit=None if intensity is None else details["strength_unit"] or "unit",
            semantic=dict(_read_segments(files, len(xyz), dropped)),
            instance=_read_instance(files, len(xyz), dropped),
        )
    finally:
        files.store.close()
    if lost.any():
        dropped["points in a lost block (zeros)"] = int(lost.sum())
        points = _without(points, lost)
    scene = Scene(
        identity=Identity(
            dataset=details.get(CALLED, ref.dataset), version=details["version"], split=ref.split,
            sequence=ref.sequence, scene_id=ref.scene_id, timestamp_ns=None, domain=details["domain"],
            licence=details["licence"], sources=files.sources(),
        ),
        world_from_scene=world_from_scene,
        points=points,
        dropped=dict(dropped) | details["dropped"],
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(ref.files["points"], str(problem)) from problem


def _without(points: Points, lost: NDArray[np.bool_]) -> Points:
    """The points that are not lost."""
    kept = ~lost
    return replace(
        points,
        xyz=points.xyz[kept],
        color=None if points.color is None else points.color[kept],
        normal=None if points.normal is None else points.normal[kept],
        intensity=None if points.intensity is None else points.intensity[kept],
        semantic={name: labels[kept] for name, labels in points.semantic.items()},
        instance=None if points.instance is None else points.instance[kept],
    )


def _read_place(files: RawFiles) -> tuple[Float32, Float64, NDArray[np.bool_]]:
    """(xyz near the origin, world_from_scene, which points stand in a lost block)."""
    path = files.ref.files["points"]
    coord = read_npy(files, "points", [(None, 3)], "f")
    if not np.isfinite(coord).all() or np.abs(coord).max() > 1e9:
        raise files.error(path, "has coordinates that are not finite, or beyond a million kilometres")
    lost = lost_rows(coord)
    if 2 * lost.sum() > len(coord) or not coord.any():
        problem = f"{max(int(lost.sum()), int((coord == 0).all(axis=1).sum()))} of {len(coord)} points are zeros"
        raise files.error(path, problem, hint="blocks of the file are lost; copy it again")
    domain = files.ref.details["domain"]
    half = float((coord[~lost].max(axis=0).astype(np.float64) - coord[~lost].min(axis=0)).max() / 2)
    if half > MAX_EXTENT_M[domain]:
        problem = f"spans {2 * half:.0f} m, at most {2 * MAX_EXTENT_M[domain]:.0f} m are plausible for {domain!r}"
        raise files.error(path, problem, hint="coordinates must be metres; give the option domain")
    pose = np.eye(4)
    if "pose" in files.ref.files:
        pose = read_npy(files, "pose", [(4, 4)], "f").astype(np.float64)
        turn = pose[:3, :3]
        rigid = np.isfinite(pose).all() and np.abs(pose).max() < 1e12 and np.allclose(pose[3], (0, 0, 0, 1))
        if not rigid or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) or np.linalg.det(turn) <= 0:
            raise files.error(files.ref.files["pose"], "is no rigid transform (rotation and shift)")
    if np.abs(coord).max() > FAR_M:
        coord = coord.astype(np.float64)
        low, high = coord[~lost].min(axis=0), coord[~lost].max(axis=0)
        origin = np.rint([*(low + high)[:2] / 2, low[2]])
        coord = coord - origin
        pose = pose @ np.block([[np.eye(3), origin[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])
    return coord.astype(np.float32), pose, lost


def _read_color(files: RawFiles, count: int, dropped: Counter[str]) -> NDArray[np.uint8] | None:
    if "color" not in files.ref.files:
        return None
    color = read_npy(files, "color", [(count, 3)], "fiu")
    if not (np.isfinite(color).all() and color.min() >= 0 and color.max() <= 255):
        raise files.error(files.ref.files["color"], "colours must lie in 0..255")
    if color.max() <= 1 and (color % 1).any():
        raise files.error(files.ref.files["color"], f"colours lie in 0..{color.max():g}, expected 0..255",
                          hint="multiply them by 255 where 1 is white")  # fmt: skip
    _count_zeros("color", color, dropped)
    colors: NDArray[np.uint8] = np.rint(color).astype(np.uint8)
    return colors


def _read_normal(files: RawFiles, count: int, dropped: Counter[str]) -> Float32 | None:
    """Unit vectors; what is shorter than a thousandth or not finite is no normal."""
    if "normal" not in files.ref.files:
        return None
    normal = read_npy(files, "normal", [(count, 3)], "f").astype(np.float32)
    normal[_count_zeros("normal", normal, dropped)] = 0  # at both ends of a block, half a normal is left
    with np.errstate(over="ignore", invalid="ignore"):
        length = np.linalg.norm(normal.astype(np.float64), axis=1, keepdims=True)
    lost = ~((length >= 1e-3) & np.isfinite(length))[:, 0]
    bent = ~lost & (np.abs(length[:, 0] - 1) > 1e-4)
    normal[bent] = (normal[bent] / length[bent]).astype(np.float32)
    if damaged := int((lost & (normal != 0).any(axis=1)).sum()):
        dropped["invalid normal"] = damaged
    normal[lost] = 0
    return normal


def _read_strength(files: RawFiles, count: int, dropped: Counter[str]) -> Float32 | None:
    """Intensities in the unit of the options; without one, floats within 0..1."""
    if "strength" not in files.ref.files:
        return None
    path, unit = files.ref.files["strength"], files.ref.details["strength_unit"]
    strength = read_npy(files, "strength", [(count,), (count, 1)], "fiu").reshape(count)
    with np.errstate(over="ignore"):
        values = strength.astype(np.float32)
    if not np.isfinite(values).all():
        raise files.error(path, "has values that are not finite")
    top = {"byte": 255.0, "raw": np.inf}.get(unit, 1.0)
    if (unit != "raw" and values.min() < 0) or values.max() > top or (unit is None and strength.dtype.kind != "f"):
        problem = f"{strength.dtype} {values.min():g}..{values.max():g} leave 0..{top:g}"
        if values.max() <= top and values.min() >= 0:
            problem = f"whole numbers ({strength.dtype}) have no known unit"
        raise files.error(path, problem, hint="say what it is by the option strength_unit: unit, byte or raw")
    _count_zeros("strength", strength, dropped)
    return values


def _count_zeros(role: str, values: NDArray[Any], dropped: Counter[str]) -> NDArray[np.bool_]:
    """Count the rows in pages of zeros, unless all of the array is zeros; which they are, bool (N,)."""
    rows = lost_rows(values, PAGE) & bool(values.any())
    if rows.any():
        dropped[f"zeros in a long run of {role} (a lost block?)"] = int(rows.sum())
    return rows


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
        if pages := whole_pages(labels):
            dropped[f"zeros in whole pages of {role} (a lost block?)"] = pages
        if further := int((labels[:, 1:] != UNLABELLED).sum()):
            dropped[f"further labels of {name}"] = further
        yield name, labels[:, 0].astype(np.int16)


def _read_instance(files: RawFiles, count: int, dropped: Counter[str]) -> NDArray[np.int32] | None:
    if "instance" not in files.ref.files:
        return None
    instance = read_npy(files, "instance", [(count,), (count, None)], "iu").reshape(count, -1)
    if not (instance.min() >= -1 and instance.max() < 2**31 - 1):
        raise files.error(files.ref.files["instance"], "instances must be whole numbers from -1")
    if instance.any() and (pages := whole_pages(instance)):
        dropped["zeros in whole pages of instance (a lost block?)"] = pages
    return (instance[:, 0].astype(np.int64) + 1).astype(np.int32)


SOURCE = Source(dataset=DATASET, options=PointceptOptions, plan=plan, read=read)
"""Scenes of Pointcept's folder layout."""
