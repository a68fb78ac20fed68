"""A corpus as PLY files, one per scene: split/scene.ply, binary, for CloudCompare, MeshLab, Open3D and plyfile.

One element, `vertex`, with a property for everything a point has: x y z (float, metres, scene frame), nx ny nz, red
green blue (uchar), intensity, label (short, -1 unlabelled) and instance (int, 0 none); further taxonomies are called
label_<taxonomy>, and lidars' properties what they are called in `shards.scene.Points`. Comments in the file's head say
which scene it is, its licence, the pose in the world and the names of the classes. A file appears whole or not at all,
so a killed export goes on with the scenes that lack one. Costs a copy of a scene's points; images stay behind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.shards.corpus import Corpus
from brickyard.shards.export.folder import Progress, begin, finish, remove_temporaries, unique_names
from brickyard.shards.export.pointcept import scene_folders
from brickyard.shards.scene import Points, Scene
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy, taxonomy_names

LAYOUT = "ply"
_VECTORS = {"xyz": ("x", "y", "z"), "normal": ("nx", "ny", "nz"), "color": ("red", "green", "blue")}
_SCALARS = ("intensity", "instance", "ring", "time_offset", "sweep", "return_number", "return_count", "elongation")
_LINE = 160
"""Characters of a comment's value; readers such as Open3D's refuse lines of more than a thousand."""
_TYPES = {"f4": "float", "u1": "uchar", "u2": "ushort", "i2": "short", "i4": "int"}


def export_ply(corpus: Corpus, out: Store, *, progress: Progress = lambda done, total: None) -> dict[str, int]:
    """Write every scene with points; returns {"scenes", "points", "without_points"} (counts).

    Raises:
        CorpusError: `out` holds something else.
        CorruptDataError: a scene of the corpus is damaged.
    """
    begin(corpus, out, LAYOUT)
    names = [f"{folder}.ply" for folder in scene_folders(corpus)]
    for folder in sorted({name.rpartition("/")[0] for name in names}):
        remove_temporaries(out, folder)
    bare = 0
    for row, name in enumerate(names):
        progress(row, len(names))
        if corpus.header(row).points is None:
            bare += 1
        elif not out.exists(name):
            out.write(name, ply_bytes(corpus.scene(row)))
    progress(len(names), len(names))
    summary = {"scenes": len(names) - bare, "points": int(corpus.points_per_scene.sum()), "without_points": bare}
    return finish(corpus, out, LAYOUT, summary)


def ply_bytes(scene: Scene) -> bytes:
    """The bytes of a scene's file; equal scenes give equal bytes."""
    assert scene.points is not None
    columns = dict(_columns(scene.points))
    dtype = np.dtype([(name, values.dtype.newbyteorder("<")) for name, values in columns.items()])  # without padding
    table = np.empty(len(scene.points.xyz), dtype)
    for name, values in columns.items():
        table[name] = values
    head = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {line}" for line in _comments(scene)),
        f"element vertex {len(table)}",
        *(f"property {_TYPES[values.dtype.str[1:]]} {name}" for name, values in columns.items()),
        "end_header",
    ]
    return "".join(f"{line}\n" for line in head).encode("ascii") + table.tobytes()


def _columns(points: Points) -> Iterator[tuple[str, NDArray[Any]]]:
    """(property, values (N,)) in the order of the file."""
    for role, names in _VECTORS.items():
        if (vectors := getattr(points, role)) is not None:
            yield from zip(names, vectors.T, strict=True)
    for name, semantic in label_names(points).items():
        yield name, points.semantic[semantic]
    for role in _SCALARS:
        if (values := getattr(points, role)) is not None:
            yield role, values


def label_names(points: Points) -> dict[str, str]:
    """Property -> taxonomy. The first in the order of names is `label`, which most programs know."""
    first, others = sorted(points.semantic)[:1], sorted(points.semantic)[1:]
    names = ["label"] * len(first) + [f"label_{name}" for name in unique_names(others)]
    return dict(zip(names, first + others, strict=True))


def _comments(scene: Scene) -> Iterator[str]:
    """Lines `name value`, the value as JSON in ASCII; one that is too long goes on in further lines of its name."""
    assert scene.points is not None
    facts: list[tuple[str, Any]] = [
        (name, getattr(scene.identity, name)) for name in ("dataset", "version", "split", "scene_id", "licence")
    ]
    facts += [("world_from_scene", row) for row in scene.world_from_scene.tolist()]
    facts += [("world_crs", scene.world_crs), ("intensity_unit", scene.points.intensity_unit)]
    for name, semantic in label_names(scene.points).items():
        classes = taxonomy(semantic).classes if semantic in taxonomy_names() else ()
        facts += [(f"{name} taxonomy", semantic), *((f"{name} {i}", text) for i, text in enumerate(classes))]
    for name, value in facts:
        text = "" if value is None else json.dumps(value)
        yield from (f"{name} {text[at : at + _LINE]}" for at in range(0, len(text), _LINE))
