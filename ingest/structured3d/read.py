"""One room of Structured3D -> Scene: the pixels of its pictures as points, the pictures as views.

The scene frame has the axes of the house's world (z up, floor at zero), in metres, with its origin at whole metres near
the panorama; world_from_scene leads back to the world, in metres too. Points come from the perspective pictures in
order, then the panorama; of the points in a cube of `grid_m` the first one stays.

The contract has no place for a room's layout, type, planes and boxes: they are not kept.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.source import SceneRef
from brickyard.ingest.structured3d.cameras import MILLIMETRE, Camera, read_camera
from brickyard.ingest.structured3d.files import REPORT, RoomFiles, is_surprise
from brickyard.ingest.structured3d.frame import CONTRADICTED, Structure, check_panorama, contradicts, read_structure
from brickyard.ingest.surfaces import NORMALS, Surface, first_in_cells, surface
from brickyard.shards.cameras import depth_places
from brickyard.shards.errors import RawDataError, SceneError
from brickyard.shards.lenses import LENSES
from brickyard.shards.scene import UNLABELLED, Depth, Float32, Float64, Identity, Points, Scene, View
from brickyard.shards.taxonomy import taxonomy

LICENCE = "LicenseRef-Structured3D"
VERSION = "2020"
TAXONOMIES = ("nyu40", "structured3d25")
MAX_PROBES = 20_000


@dataclass(frozen=True, eq=False)
class _Picture:
    """A picture with all that is known of its pixels; `view` is in the world, without labels."""

    name: str
    view: View
    color: NDArray[np.uint8]
    nyu40: NDArray[np.uint8] | None
    instance: NDArray[np.int32] | None

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]

    @property
    def depth(self) -> Depth:
        assert self.view.depth is not None
        return self.view.depth

    @property
    def pose(self) -> Float64:
        assert self.view.scene_from_camera is not None
        return self.view.scene_from_camera


def read(ref: SceneRef) -> Scene:
    """Read the room of a reference made by `plan`.

    Returns a validated Scene: points with colour, normals, label sets "nyu40" and "structured3d25" and instances (ids
    of `bbox_3d.json` + 1); an equirectangular view with depth along rays and pinhole views with depth along z, each
    with its label images. What is damaged is left out and counted as long as a picture for the points is whole. Raises
    `RawDataError` otherwise, and for whatever contradicts the published format.
    """
    files, options, dropped = RoomFiles(ref), ref.details["options"], Counter[str](ref.details["dropped"])
    try:
        pictures, problem = _read_pictures(files, dropped)
        structure = read_structure(files, dropped)
        pictures = _checked(files, structure, pictures, options, dropped)
    finally:
        files.raw.store.close()
    used = [picture for picture in pictures if options["points"] in ("both", picture.kind)]
    if not used:
        raise problem or files.error(f"{ref.details['pictures'][0]}/depth", "every picture contradicts the panorama")
    place = next((p.pose for p in pictures if p.name == "panorama"), pictures[0].pose)[:3, 3]
    origin = np.array([*np.rint(place[:2]), 0.0])
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = origin
    points = _points(used, origin, options, dropped)
    if not len(points):
        raise files.error(f"{used[-1].name}/depth", "no pixel of it became a point")
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=VERSION, split=ref.split, sequence=ref.sequence, scene_id=ref.scene_id,
            timestamp_ns=None, domain="indoor", licence=LICENCE, sources=files.raw.sources(),
        ),
        world_from_scene=world_from_scene,
        points=points,
        views=tuple(_views(pictures, origin, options)),
        annotations={} if structure is None else {"layout": structure.annotation(origin)},
        dropped=dict(+dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as wrong:
        raise files.error(f"{used[-1].name}/color", str(wrong)) from wrong


def _read_pictures(files: RoomFiles, dropped: Counter[str]) -> tuple[list[_Picture], RawDataError | None]:
    """The pictures that are whole, and the first problem with one that is not."""
    pictures, first = [], None
    for name in files.raw.ref.details["pictures"]:
        try:
            pictures.append(_read_picture(files, name, dropped))
        except RawDataError as problem:
            if is_surprise(problem):
                raise
            dropped[f"{name.partition('/')[0]} picture that is damaged"] += 1
            first = first or problem
    return pictures, first


def _read_picture(files: RoomFiles, name: str, dropped: Counter[str]) -> _Picture:
    data, color, header = files.color(f"{name}/color")
    camera = read_camera(files, name, header.size)
    values = files.depth(f"{name}/depth")
    if values.shape != color.shape[:2]:
        found = f"{values.shape[1]}x{values.shape[0]} pixels, the colours have {header.width}x{header.height}"
        raise files.error(f"{name}/depth", found)
    depth = Depth(values=values, scale=MILLIMETRE, intrinsics=camera.intrinsics, along=camera.along)
    labels: dict[str, Any] = {}
    for what, decode in (("semantic", files.semantic), ("instance", files.instance)):
        labels[what] = _labels(files, f"{name}/{what}", decode, values.shape, dropped)
    return _Picture(name, _view(name, camera, data, header.size, depth), color, labels["semantic"], labels["instance"])


def _labels(files: RoomFiles, role: str, decode: Any, shape: tuple[int, ...], dropped: Counter[str]) -> Any:
    """A label image; None, counted, if it is damaged or of another size (as one is in the release)."""
    if not files.has(role):
        return None
    kind, what = role.partition("/")[0], role.rpartition("/")[2]
    try:
        values = decode(role)
    except RawDataError as problem:
        if is_surprise(problem):
            raise
        dropped[f"{kind} picture whose {what} image is damaged"] += 1
        return None
    if values.shape != shape:
        dropped[f"{kind} picture whose {what} image has another size"] += 1
        return None
    return values


def _view(name: str, camera: Camera, data: bytes, size: tuple[int, int], depth: Depth) -> View:
    return View(
        name=name.replace("/", "-"), image=data, image_format="png", width=size[0], height=size[1],
        camera_model=camera.model, intrinsics=camera.intrinsics,
        scene_from_camera=camera.world_from_camera, depth=depth,
    )  # fmt: skip


def _checked(
    files: RoomFiles,
    structure: Structure | None,
    pictures: list[_Picture],
    options: dict[str, Any],
    dropped: Counter[str],
) -> list[_Picture]:
    """The pictures without those that contradict the panorama; see `frame`."""
    panorama = next((picture for picture in pictures if picture.name == "panorama"), None)
    if panorama is None:
        return pictures
    place = panorama.pose[:3, 3]
    rows, columns = np.nonzero(panorama.depth.values)
    chosen = slice(None, None, max(1, len(rows) // MAX_PROBES))
    rows, columns = rows[chosen], columns[chosen]
    metres = panorama.depth.values[rows, columns] * np.float64(panorama.depth.scale)
    pixels = np.stack([columns, rows], axis=1).astype(np.float64)
    seen = depth_places(pixels, metres, panorama.view, panorama.depth)
    xyz = (seen @ panorama.pose[:3, :3].T + place).astype(np.float32)
    labels = None if panorama.nyu40 is None else panorama.nyu40[rows, columns]
    on_planes = check_panorama(files, structure, (panorama.view, place), (xyz, labels), dropped)
    others, least = [picture for picture in pictures if picture is not panorama], options["min_agreement"]
    wrong = [picture for picture in others if least and contradicts(files, picture.view, xyz, place, least)]
    if len(wrong) < 2 or len(wrong) < len(others):
        dropped[CONTRADICTED] += len(wrong)
        return [picture for picture in pictures if picture not in wrong]
    if on_planes:
        problem = (
            f"all {len(others)} perspective pictures contradict it: its depth, or all of their poses, is another's"
        )
        raise files.error("panorama/depth", problem, REPORT)
    dropped["panorama that the planes and all perspective pictures contradict"] += 1
    return others


def _surface(picture: _Picture) -> Surface:
    height, width = picture.depth.values.shape
    (fx, _, cx), (_, fy, cy) = picture.depth.intrinsics[:2]
    x, y = np.meshgrid((np.arange(width) - cx) / fx, (np.arange(height) - cy) / fy)
    ahead = LENSES[picture.view.camera_model].direction(np.stack([x.ravel(), y.ravel()], axis=1), ())
    if picture.depth.along == "z":
        ahead = ahead / ahead[:, 2:]
    metres = picture.depth.values * np.float64(picture.depth.scale)
    return surface(ahead.reshape(height, width, 3), metres, around=picture.name == "panorama")


def _points(pictures: list[_Picture], origin: Float64, options: dict[str, Any], dropped: Counter[str]) -> Points:
    parts: list[tuple[NDArray[Any], ...]] = []
    for picture in pictures:
        seen = _surface(picture)
        labels = np.zeros(len(seen.pixel), np.uint8) if picture.nyu40 is None else picture.nyu40.ravel()[seen.pixel]
        clear = seen.cosine > options["min_cosine"]  # NaN compares as false
        named = (labels > 0) | bool(picture.nyu40 is None or options["keep_unlabelled"])
        dropped["pixel without depth"] += picture.depth.values.size - len(seen.pixel)
        dropped["pixel at an edge or seen at a grazing angle"] += int((~clear).sum())
        dropped["pixel without a class"] += int((clear & ~named).sum())
        keep = np.flatnonzero(clear & named)
        rotation, place = picture.pose[:3, :3], picture.pose[:3, 3] - origin
        xyz = (seen.xyz[keep].astype(np.float64) @ rotation.T + place).astype(np.float32)
        first = first_in_cells(xyz, options["grid_m"])
        keep = keep[first]
        pixel = seen.pixel[keep]
        instance = np.zeros(len(keep), np.int32) if picture.instance is None else picture.instance.ravel()[pixel]
        color, normal = picture.color.reshape(-1, 3)[pixel], _unit(seen.normal[keep] @ rotation.T)
        parts.append((xyz[first], color, normal, labels[keep], instance))
    xyz, color, normal, nyu40, instance = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    first = first_in_cells(xyz, options["grid_m"])
    labelled = any(picture.nyu40 is not None for picture in pictures)
    counted = any(picture.instance is not None for picture in pictures)
    return Points(
        xyz=xyz[first], color=color[first], normal=normal[first], normal_source=NORMALS,
        semantic=_classes(nyu40[first]) if labelled else {}, instance=instance[first] if counted else None,
    )  # fmt: skip


def _unit(vectors: NDArray[Any]) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def _classes(nyu40: NDArray[np.uint8]) -> dict[str, NDArray[np.int16]]:
    """Label sets of NYU40 ids, 0 unlabelled."""
    result = {}
    for name in TAXONOMIES:
        table = np.full(256, UNLABELLED, np.int16)
        for raw, ident in taxonomy(name).from_raw.items():
            table[raw] = ident
        result[name] = table[nyu40]
    return result


def _views(pictures: list[_Picture], origin: Float64, options: dict[str, Any]) -> list[View]:
    """The panorama, then at most `max_views` of the others."""
    wanted = [picture for picture in pictures if options["views"] in ("both", picture.kind)]
    others = [picture for picture in wanted if picture.name != "panorama"]
    count = min(len(others), options["max_views"])
    chosen = [others[(2 * k + 1) * len(others) // (2 * count)] for k in range(count)]
    scene_from_world = np.eye(4)
    scene_from_world[:3, 3] = -origin
    views = []
    for picture in [*(picture for picture in wanted if picture.name == "panorama"), *chosen]:
        labels = options["read_labels"]
        views.append(
            replace(
                picture.view,
                scene_from_camera=scene_from_world @ picture.pose,
                depth=picture.depth if options["read_depth"] else None,
                semantic=_classes(picture.nyu40) if labels and picture.nyu40 is not None else {},
                instance=picture.instance if labels else None,
            )
        )
    return views
