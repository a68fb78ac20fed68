"""Scene <-> a header and named blobs.

The header is JSON: identity, frames, cameras, and for every field the spec that decodes its blob. Field names are the
addresses of a recipe's wishes: "points/xyz", "points/semantic.scannet20", "views/3/image", "views/3/pairs". A recipe
reads the header and the blobs it names, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from brickyard.shards import codecs
from brickyard.shards.annotations import FIELD as ANNOTATIONS
from brickyard.shards.annotations import annotation_bytes, read_annotations
from brickyard.shards.codecs import Compressor, Spec
from brickyard.shards.documents import Every, Maybe, OneOf, check_document, read_document
from brickyard.shards.errors import NONSENSE, CorruptDataError, SceneError
from brickyard.shards.scene import (
    CameraModel,
    Correspondences,
    Depth,
    DepthAxis,
    Identity,
    ImageFormat,
    Part,
    Points,
    RollingShutter,
    Scene,
    SourceFile,
    Superpixels,
    View,
)

FORMAT_VERSION = 2
"""Version of the header, the containers and the index; a reader refuses a newer one."""

HEADER = "header"
"""Name of the header among the blobs of a scene."""

XYZ_STEPS = {"indoor": (1 / 1024,), "object": (1 / 8192, 1 / 1024), "outdoor": (1 / 512, 1 / 256), "video": (1 / 1024,)}
"""Steps in metres by domain, finest first: errors stay below 0.5 mm indoors and 2 mm at lidar range."""

DEPTH_STEPS = (1 / 1024, 1 / 512, 1 / 256)


@dataclass(frozen=True)
class EncodedScene:
    """A scene as bytes.

    Attributes:
        identity: of the scene.
        header: JSON (UTF-8), with the specs of all fields.
        blobs: field name -> bytes, in a fixed order.
        summary: columns of the index: counts, bounds and quality figures.
    """

    identity: Identity
    header: bytes
    blobs: dict[str, bytes]
    summary: dict[str, Any]


def encode_scene(scene: Scene, compressor: Compressor = "zstd") -> EncodedScene:
    """Validate and encode; the same scene gives the same bytes. Raises `SceneError`."""
    scene.validate()
    fields: dict[str, tuple[bytes, Spec]] = {}
    header: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "identity": asdict(scene.identity),
        "world_from_scene": _matrix(scene.world_from_scene),
        "world_crs": scene.world_crs,
        "part": None if scene.part is None else _part_header(scene.part),
        "points": None,
        "views": [],
        "dropped": dict(sorted(scene.dropped.items())),
    }
    if scene.figures:
        header["figures"] = dict(sorted(scene.figures.items()))
    if scene.points is not None:
        header["points"] = {
            "count": len(scene.points),
            "normal_source": scene.points.normal_source,
            "intensity_unit": scene.points.intensity_unit,
        }
        fields.update(_encode_points(scene.points, XYZ_STEPS[scene.identity.domain], compressor))
    for number, view in enumerate(scene.views):
        header["views"].append(_view_header(view))
        fields.update({f"views/{number}/{k}": v for k, v in _encode_view(view, compressor).items()})
    if scene.annotations:
        fields[ANNOTATIONS] = codecs.encode_array(annotation_bytes(scene.annotations), compressor)
    header["fields"] = {name: spec for name, (_, spec) in fields.items()}
    return EncodedScene(
        identity=scene.identity,
        header=json.dumps(header, separators=(",", ":"), allow_nan=False).encode(),
        blobs={name: blob for name, (blob, _) in fields.items()},
        summary=summarise(scene),
    )


def _encode_points(points: Points, steps: tuple[float, ...], compressor: Compressor) -> dict[str, tuple[bytes, Spec]]:
    fields = {"xyz": codecs.encode_quantised(points.xyz, steps, compressor)}
    if points.color is not None:
        fields["color"] = codecs.encode_array(points.color, compressor)
    if points.normal is not None:
        fields["normal"] = codecs.encode_octahedral(points.normal, compressor)
    for name in ("intensity", "time_offset", "elongation"):
        if (values := getattr(points, name)) is not None:
            fields[name] = codecs.encode_palette(values, compressor)
    for name in ("ring", "sweep", "return_number", "return_count", "instance"):
        if (values := getattr(points, name)) is not None:
            fields[name] = codecs.encode_array(values, compressor)
    for taxonomy, labels in sorted(points.semantic.items()):
        fields[f"semantic.{taxonomy}"] = codecs.encode_array(labels, compressor)
    return {f"points/{name}": value for name, value in fields.items()}


def _encode_view(view: View, compressor: Compressor) -> dict[str, tuple[bytes, Spec]]:
    fields = {"image": codecs.encode_raw(view.image)}
    if view.depth is not None:
        fields["depth"] = codecs.encode_rows(view.depth.values, compressor)
    for taxonomy, labels in sorted(view.semantic.items()):
        fields[f"semantic.{taxonomy}"] = codecs.encode_labels(labels, compressor)
    if view.instance is not None:
        fields["instance"] = codecs.encode_array(view.instance, compressor)
    if view.superpixels is not None:
        fields["superpixels"] = codecs.encode_rows(view.superpixels.labels, compressor)
    if view.pairs is not None:
        pairs = view.pairs
        fields["pairs"] = codecs.encode_pairs(pairs.point, pairs.pixel, pairs.visible, compressor)
        fields["pair_depth"] = codecs.encode_quantised(pairs.depth, DEPTH_STEPS, compressor)
    return fields


def _view_header(view: View) -> dict[str, Any]:
    return {
        "name": view.name,
        "image_format": view.image_format,
        "width": view.width,
        "height": view.height,
        "camera_model": view.camera_model,
        "intrinsics": _matrix(view.intrinsics),
        "distortion": list(view.distortion),
        "scene_from_camera": None if view.scene_from_camera is None else _matrix(view.scene_from_camera),
        "timestamp_ns": view.timestamp_ns,
        "rolling_shutter": None if view.rolling_shutter is None else _shutter_header(view.rolling_shutter),
        "depth": None if view.depth is None else _depth_header(view.depth),
        "superpixels": None if view.superpixels is None else view.superpixels.provenance,
        "pairs": None if view.pairs is None else view.pairs.provenance,
    }


def _depth_header(depth: Depth) -> dict[str, Any]:
    """`along` is said only where it is not z, so that what was written before it existed has the same bytes."""
    known = {"scale": depth.scale, "intrinsics": _matrix(depth.intrinsics)}
    return known if depth.along == "z" else {**known, "along": depth.along}


def _shutter_header(shutter: RollingShutter) -> dict[str, Any]:
    motion = {name: getattr(shutter, name).tolist() for name in ("velocity", "angular_velocity")}
    return {"direction": shutter.direction, "readout_s": float(shutter.readout_s)} | motion


def _part_header(part: Part) -> dict[str, Any]:
    """JSON has no infinity: null stands for it."""
    sides = {
        name: [float(v) if np.isfinite(v) else None for v in getattr(part, name)] for name in ("core_min", "core_max")
    }
    return {"whole": part.whole} | sides


def summarise(scene: Scene) -> dict[str, Any]:
    """The columns of the index that follow from a scene's content: counts, bounds, what was left out."""
    points = scene.points
    pairs = [view.pairs for view in scene.views if view.pairs is not None]
    count = sum(len(p) for p in pairs)
    bounded = points is not None and len(points) > 0
    return {
        "n_points": 0 if points is None else len(points),
        "n_views": len(scene.views),
        "n_pairs": count,
        "visible_share": float(sum(int(p.visible.sum()) for p in pairs) / count) if count else None,
        "bounds_min": [float(v) for v in points.xyz.min(axis=0)] if points is not None and bounded else None,
        "bounds_max": [float(v) for v in points.xyz.max(axis=0)] if points is not None and bounded else None,
        "whole": None if scene.part is None else scene.part.whole,
        "raw_bytes": sum(source.size for source in scene.identity.sources),
        "dropped": json.dumps(dict(sorted(scene.dropped.items()))),
        "figures": sorted(scene.figures.items()) or None,
    }


# Decoding


_SHAPE = {
    "identity": {"sources": [{"path": str, "size": int, "digest": str}]},
    "world_from_scene": [[float]],
    "world_crs": Maybe((str, None)),
    "part": Maybe(({"whole": str, "core_min": [(float, None)], "core_max": [(float, None)]}, None)),
    "points": ({"count": int, "normal_source": (str, None), "intensity_unit": (str, None)}, None),
    "views": [
        {
            "name": str,
            "image_format": OneOf(get_args(ImageFormat)),
            "width": int,
            "height": int,
            "camera_model": OneOf(get_args(CameraModel)),
            "intrinsics": [[float]],
            "distortion": [float],
            "scene_from_camera": ([[float]], None),
            "timestamp_ns": (int, None),
            "rolling_shutter": Maybe((dict, None)),
            "depth": ({"scale": float, "intrinsics": [[float]], "along": Maybe(OneOf(get_args(DepthAxis)))}, None),
            "superpixels": (dict, str, None),
            "pairs": (dict, str, None),
        }
    ],
    "dropped": Every(int),
    "figures": Maybe(Every(float)),
    "fields": Every(dict),
}


class SceneHeader:
    """What a scene says of itself, without any of its arrays.

    Attributes:
        identity: `Identity`.
        world_from_scene: float64 (4, 4).
        world_crs, part: as in `Scene`.
        points: {"count", "normal_source", "intensity_unit"} or None.
        views: one `View` each, with an empty image and without arrays.
        figures, dropped: as in `Scene`.
        fields: field name -> spec.
    """

    def __init__(self, data: bytes | memoryview) -> None:
        table = read_document(data, "the header", {"format": int}, error=ValueError)
        version = table["format"]
        if version > FORMAT_VERSION:
            raise SceneError(
                f"the scene has format version {version}, this program reads up to {FORMAT_VERSION}: update it"
            )
        check_document(table, "the header", _SHAPE, error=ValueError)
        identity = dict(table["identity"])
        identity["sources"] = tuple(SourceFile(**source) for source in identity["sources"])
        self.identity = Identity(**identity)
        self.world_from_scene = np.asarray(table["world_from_scene"], np.float64)
        self.world_crs: str | None = table.get("world_crs")  # since format 2
        self.part = _decode_part(table.get("part"))
        self.points: dict[str, Any] | None = table["points"]
        self.views: tuple[dict[str, Any], ...] = tuple(table["views"])
        self.figures: dict[str, float] = table.get("figures") or {}
        self.dropped: dict[str, int] = table["dropped"]
        self.fields: dict[str, Spec] = table["fields"]

    def view(self, number: int) -> View:
        """View `number` without its arrays: camera, pose, size and times; the image is empty."""
        entry = self.views[number]
        pose = entry["scene_from_camera"]
        return View(
            name=entry["name"],
            image=b"",
            image_format=entry["image_format"],
            width=entry["width"],
            height=entry["height"],
            camera_model=entry["camera_model"],
            intrinsics=np.asarray(entry["intrinsics"], np.float64),
            distortion=tuple(entry["distortion"]),
            scene_from_camera=None if pose is None else np.asarray(pose, np.float64),
            timestamp_ns=entry["timestamp_ns"],
            rolling_shutter=_decode_shutter(entry.get("rolling_shutter")),
        )

    def depth(self, number: int, values: NDArray[np.uint16]) -> Depth:
        """The depth image of view `number`, of its values uint16 (h, w); the view must have one."""
        entry = self.views[number]["depth"]
        return Depth(
            values=values,
            scale=float(entry["scale"]),
            intrinsics=np.asarray(entry["intrinsics"], np.float64),
            along=entry.get("along", "z"),
        )


def _decode_part(entry: Any) -> Part | None:
    if entry is None:
        return None
    low, high = (
        np.array([limit if v is None else v for v in entry[name]], np.float64)
        for name, limit in (("core_min", -np.inf), ("core_max", np.inf))
    )
    return Part(whole=entry["whole"], core_min=low, core_max=high)


def _decode_shutter(entry: Any) -> RollingShutter | None:
    if entry is None:
        return None
    velocity, angular = (np.asarray(entry[name], np.float64) for name in ("velocity", "angular_velocity"))
    return RollingShutter(
        direction=entry["direction"], readout_s=entry["readout_s"], velocity=velocity, angular_velocity=angular
    )


def decode_scene(header: SceneHeader, read: Callable[[str], Any]) -> Scene:
    """The whole Scene; `read` gives the decoded value of a field (see `codecs.decode`)."""
    points = None
    if header.points is not None:
        names = [name for name in header.fields if name.startswith("points/")]
        values = {name.removeprefix("points/"): read(name) for name in names}
        semantic = {k.removeprefix("semantic."): v for k, v in values.items() if k.startswith("semantic.")}
        plain = {k: v for k, v in values.items() if not k.startswith("semantic.") and k != "xyz"}
        points = Points(
            xyz=values["xyz"].dequantise(),
            semantic=semantic,
            normal_source=header.points["normal_source"],
            intensity_unit=header.points["intensity_unit"],
            **plain,
        )
    return Scene(
        identity=header.identity,
        world_from_scene=header.world_from_scene,
        world_crs=header.world_crs,
        part=header.part,
        points=points,
        views=tuple(_decode_view(header, number, read) for number in range(len(header.views))),
        annotations=read_annotations(bytes(read(ANNOTATIONS))) if ANNOTATIONS in header.fields else {},
        figures=header.figures,
        dropped=header.dropped,
    )


def _decode_view(header: SceneHeader, number: int, read: Callable[[str], Any]) -> View:
    entry, prefix = header.views[number], f"views/{number}/"
    view = replace(header.view(number), image=bytes(read(prefix + "image")))
    if entry["depth"] is not None:
        view = replace(view, depth=header.depth(number, read(prefix + "depth")))
    names = [name.removeprefix(prefix) for name in header.fields if name.startswith(prefix)]
    semantic = {name.removeprefix("semantic."): read(prefix + name) for name in names if name.startswith("semantic.")}
    view = replace(view, semantic=semantic, instance=read(prefix + "instance") if "instance" in names else None)
    if entry["superpixels"] is not None:
        labels = read(prefix + "superpixels")
        view = replace(view, superpixels=Superpixels(labels=labels, provenance=entry["superpixels"]))
    if entry["pairs"] is not None:
        point, pixel, visible = read(prefix + "pairs")
        distance = read(prefix + "pair_depth").dequantise()
        pairs = Correspondences(point=point, pixel=pixel, depth=distance, visible=visible, provenance=entry["pairs"])
        view = replace(view, pairs=pairs)
    return view


def decode_field(
    specs: Mapping[str, Spec], name: str, blob: codecs.Blob, allocate: codecs.Allocate, *, shard: str, scene: str
) -> Any:
    """`codecs.decode` with errors that name shard, scene and field."""
    try:
        return codecs.decode(specs[name], blob, allocate)
    except codecs.CodecError as problem:
        raise CorruptDataError(str(problem), shard=shard, scene=scene, field=name) from problem
    except NONSENSE as problem:
        raise CorruptDataError(f"impossible spec: {problem!r}", shard=shard, scene=scene, field=name) from problem


def _matrix(value: np.ndarray[Any, np.dtype[np.float64]]) -> list[list[float]]:
    return [[float(x) for x in row] for row in value]
