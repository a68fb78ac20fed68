"""A corpus as Pointcept's folders of .npy files: split/scene/{coord,color,normal,segment20,instance,strength,pose}.npy.

The conventions are those of its preprocessors: -1 is ignored in segments and instances, instances count from 0,
intensity is called strength and lies in 0..1, Waymo's frames lie in a folder per sequence, S3DIS is divided by area. A
corpus of one dataset fills the folder itself, one of several a folder each (each is a `data_root`). A scene is complete
when its scene.json is there; that is written last, so a killed export goes on with the scenes that lack it. Costs
decoding and one file per array.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.export.folder import Progress, begin, finish, remove_temporaries, safe_name, unique_names
from brickyard.shards.scene import Points, Scene
from brickyard.shards.storage import Store

LAYOUT = "pointcept"
SCENE = "scene.json"

_SEGMENTS = {"scannet20": "segment20", "scannet200": "segment200"}
_NEVER_PLAIN = ("scannet20", "scannet200", "nyu40")
_WAYMO_SPLITS = {"train": "training", "val": "validation", "test": "testing"}
_NO_PLACE = ("ring", "time_offset", "sweep", "return_number", "return_count", "elongation")


def export_pointcept(corpus: Corpus, out: Store, *, progress: Progress = lambda done, total: None) -> dict[str, int]:
    """Write every scene with points; returns {"scenes", "points", "without_points"} (counts).

    Raises:
        CorpusError: `out` holds something else.
        CorruptDataError: a scene of the corpus is damaged.
    """
    begin(corpus, out, LAYOUT)
    folders = scene_folders(corpus)
    points = corpus.points_per_scene
    bare = 0
    for row, folder in enumerate(folders):
        progress(row, len(folders))
        if out.exists(f"{folder}/{SCENE}"):
            continue
        if corpus.header(row).points is None:
            bare += 1
            continue
        remove_temporaries(out, folder)
        scene = corpus.scene(row)
        for name, values in scene_arrays(scene).items():
            out.write(f"{folder}/{name}.npy", npy_bytes(values))
        out.write(f"{folder}/{SCENE}", json.dumps(scene_notes(scene), indent=1).encode())
    progress(len(folders), len(folders))
    summary = {"scenes": len(folders) - bare, "points": int(points.sum()), "without_points": bare}
    return finish(corpus, out, LAYOUT, summary)


def scene_folders(corpus: Corpus) -> list[str]:
    """Folder of every row in the export: [dataset/]split/scene, Waymo split/sequence/frame, S3DIS area/room."""
    rows = corpus.index.select(["dataset", "split", "sequence", "scene_id"]).to_pylist()
    several = len({row["dataset"] for row in rows}) > 1
    groups: dict[str, list[tuple[int, str]]] = {}
    for number, row in enumerate(rows):
        parts, name = [row["split"]], row["scene_id"]
        inner = name.removeprefix(f"{row['sequence']}/")
        if row["dataset"].startswith("waymo"):
            parts, name = [_WAYMO_SPLITS.get(row["split"], row["split"]), row["sequence"]], inner
        elif row["dataset"] == "s3dis":
            parts, name = [row["sequence"]], inner
        group = "/".join(map(safe_name, [row["dataset"], *parts] if several else parts))
        groups.setdefault(group, []).append((number, name))
    folders = [""] * len(rows)
    for group, members in groups.items():
        for (number, _), name in zip(members, unique_names([name for _, name in members]), strict=True):
            folders[number] = f"{group}/{name}"
    return folders


def scene_arrays(scene: Scene) -> dict[str, NDArray[Any]]:
    """File name without .npy -> array, as docs/format.md lists them."""
    points = scene.points
    assert points is not None
    arrays: dict[str, NDArray[Any]] = {"coord": points.xyz}
    if points.color is not None:
        arrays["color"] = points.color
    if points.normal is not None:
        arrays["normal"] = points.normal
    for taxonomy, name in segment_names(points.semantic).items():
        arrays[name] = points.semantic[taxonomy]
    if points.instance is not None:
        arrays["instance"] = points.instance - np.int32(1)
    if points.intensity is not None:
        arrays["strength"] = _strength(scene, points)[0][:, None]
    return arrays | {"pose": scene.world_from_scene}


def segment_names(semantic: Mapping[str, Any]) -> dict[str, str]:
    """Taxonomy -> file name without .npy. ScanNet's have names of their own; the first other one is the segment."""
    plain = next((name for name in sorted(semantic) if name not in _NEVER_PLAIN), None)
    others = [name for name in sorted(semantic) if name != plain and name not in _SEGMENTS]
    names = dict(zip(others, (f"segment_{name}" for name in unique_names(others)), strict=True))
    return {name: "segment" if name == plain else _SEGMENTS.get(name) or names[name] for name in semantic}


def _strength(scene: Scene, points: Points) -> tuple[NDArray[np.float32], str]:
    """(intensity in Pointcept's scale, how it was made), float32 (N,)."""
    assert points.intensity is not None
    if points.intensity_unit == "byte":
        return points.intensity / np.float32(255), "intensity / 255"
    if points.intensity_unit == "raw" and scene.identity.dataset.startswith("waymo"):
        return np.tanh(points.intensity), "tanh(intensity)"
    return points.intensity, "intensity"


def scene_notes(scene: Scene) -> dict[str, Any]:
    """What the arrays do not say, for people and programs."""
    points = scene.points
    assert points is not None
    behind = [name for name in _NO_PLACE if getattr(points, name) is not None]
    return {
        "identity": asdict(scene.identity),
        "world_crs": scene.world_crs,
        "whole": None if scene.part is None else scene.part.whole,
        "taxonomies": {f"{name}.npy": taxonomy for taxonomy, name in segment_names(points.semantic).items()},
        "normal_source": points.normal_source,
        "intensity_unit": points.intensity_unit,
        "strength": None if points.intensity is None else _strength(scene, points)[1],
        "left_behind": [*behind, "views"] if scene.views else behind,
    }


def npy_bytes(values: NDArray[Any]) -> bytes:
    """The bytes of a .npy file (version 1.0)."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(values), allow_pickle=False)
    return sink.getvalue()
