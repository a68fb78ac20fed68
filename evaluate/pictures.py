"""Features made visible: scenes coloured by what a student sees in them, as pictures and as point clouds.

For each scene: its own colours (or its height, where it has none) and its features' principal components, from above
and oblique, as PNG; the components also as a PLY file that any viewer opens. Several scenes are coloured by the same
components, so that equal colours mean equal features. A query shows how similar all points are to one of them, in its
own scene and in others, with the best matches marked. About a second a picture.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from brickyard.evaluate.pca import Components, principal
from brickyard.evaluate.show.cloud import Camera, drawn, fit, from_above, oblique, render
from brickyard.evaluate.show.colour import RGB, height_colours, turbo
from brickyard.evaluate.show.raster import draw
from brickyard.shards.atomic import write_whole
from brickyard.shards.corpus import Corpus
from brickyard.shards.errors import RecipeError
from brickyard.shards.stream import Stream
from brickyard.train.students.base import Student

if TYPE_CHECKING:
    from brickyard.shards.stream import Sample

MATCHES = 5
"""Best matches of a query that are marked in each scene."""
_APART = {"outdoor": 3.0}
_APART_INDOORS = 0.5
"""Metres between two matches, lest all of them lie on one thing."""
_QUERY, _MATCH = (255, 255, 255), (255, 64, 200)


@dataclass(frozen=True, kw_only=True)
class SeenScene:
    """A scene and its features.

    Attributes:
        key, domain: of the scene.
        xyz: float32 (N, 3). colours: uint8 (N, 3), its own or by height.
        coloured: whether they are its own.
        features: float32 (V, C) on the CPU. row: int64 (N,), of each point.
    """

    key: str
    domain: str
    xyz: NDArray[np.float32]
    colours: RGB
    coloured: bool
    features: Tensor
    row: Tensor

    @property
    def name(self) -> str:
        """The key as the beginning of a file's name."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.key).strip(".-") or "scene"


def seen_scenes(student: Student, corpus: Corpus, rows: Sequence[int]) -> Iterator[SeenScene]:
    """The scenes of these rows, encoded; the student is taken as it is, in evaluation mode."""

    def prepare(sample: Sample, rng: np.random.Generator) -> Any:
        del rng
        color = np.array(sample["points/color"]) if "points/color" in sample else None
        return student.read(sample), color

    fields = (*student.fields, "points/color")
    stream = Stream(corpus, fields, batch=1, rows=rows, threads=1, prepare=prepare, epochs=1, shuffle=False)
    for items in stream:
        for cloud, color in items:
            with torch.no_grad():
                encoded = student.encode([cloud])
            xyz = cloud.xyz.numpy()
            yield SeenScene(
                key=cloud.key,
                domain=cloud.domain,
                xyz=xyz,
                colours=height_colours(xyz[:, 2]) if color is None else color,
                coloured=color is not None,
                features=encoded.features.float().cpu(),
                row=encoded.inverse.cpu(),
            )


def write_pictures(scenes: Sequence[SeenScene], out: Path) -> list[dict[str, Any]]:
    """Write `<scene>-<what>-<view>.png` and `<scene>-features.ply`; what was written, for features.json."""
    out.mkdir(parents=True, exist_ok=True)
    components = principal(scene.features for scene in scenes)
    written = []
    for scene in scenes:
        painted = components.colours(scene.features)[scene.row.numpy()]
        own = "colour" if scene.coloured else "height"
        files = []
        for view in ("top", "oblique"):
            for what, colours in ((own, scene.colours), ("features", painted)):
                name = f"{scene.name}-{what}-{view}.png"
                _save(picture(scene, colours, view), out / name)
                files.append({"file": name, "caption": f"{what.capitalize()}, {_VIEWS[view]}"})
        ply = f"{scene.name}-features.ply"
        write_ply(out / ply, scene.xyz, painted)
        written.append({"scene": scene.key, "title": _title(components), "pictures": files, "ply": ply})
    return written


_VIEWS = {"top": "from above", "oblique": "oblique"}


def _title(components: Components) -> str:
    share = ", ".join(f"{100 * float(value):.0f} %" for value in components.share)
    return f"Features by their principal components as red, green, blue ({share} of the variance)"


def picture(scene: SeenScene, colours: RGB, view: str, marks: Sequence[tuple[int, tuple[int, int, int]]] = ()) -> RGB:
    """uint8 (480, 640, 3): the scene in these colours (N, 3), from "top" or "oblique".

    Args:
        marks: (point, colour) of rings.
    """
    shown = drawn(scene.xyz, scene.domain)
    xyz = scene.xyz[shown]
    camera = fit(xyz, from_above() if view == "top" else oblique(xyz))
    canvas = render(xyz, colours[shown], camera, 0.7 if scene.domain == "outdoor" else 1.5)
    return _marked(canvas, scene, camera, marks) if marks else canvas


def _marked(canvas: RGB, scene: SeenScene, camera: Camera, marks: Sequence[tuple[int, tuple[int, int, int]]]) -> RGB:
    centres = camera.project(scene.xyz[[point for point, _ in marks]])[:, :2]
    black = np.zeros((len(marks), 3), np.uint8)
    draw(canvas, centres, black, 9.0, hole=4.0)
    draw(canvas, centres, np.array([colour for _, colour in marks], np.uint8), 8.0, hole=5.5)
    return canvas


@dataclass(frozen=True, kw_only=True)
class Match:
    """A point of a scene whose feature is like the query's: cosine `similarity`, -1..1."""

    scene: str
    point: int
    xyz: tuple[float, float, float]
    similarity: float


def similarity(feature: Tensor, scene: SeenScene) -> Tensor:
    """float32 (V,): cosine between a feature (C,) and the scene's rows."""
    return functional.cosine_similarity(scene.features, feature[None], dim=1)


def best_matches(scene: SeenScene, values: Tensor, *, exclude: NDArray[np.float32] | None = None) -> list[Match]:
    """The most similar points of a scene, one for each place.

    Args:
        values: (V,), of its rows. exclude: a place (3,) around which nothing counts, the query's own.
    """
    apart = _APART.get(scene.domain, _APART_INDOORS)
    score = values.numpy()[scene.row.numpy()].astype(np.float64)
    if exclude is not None:
        score[_near(scene.xyz, exclude, apart)] = -np.inf
    found: list[Match] = []
    while len(found) < MATCHES and np.isfinite(best := score.max()):
        point = int(score.argmax())
        x, y, z = (float(v) for v in scene.xyz[point])
        found.append(Match(scene=scene.key, point=point, xyz=(x, y, z), similarity=float(best)))
        score[_near(scene.xyz, scene.xyz[point], apart)] = -np.inf
    return found


def _near(xyz: NDArray[np.float32], place: NDArray[np.float32], apart: float) -> NDArray[np.bool_]:
    return np.asarray(np.square(xyz - place).sum(axis=1) < apart * apart)


def write_query(scenes: Sequence[SeenScene], point: int, out: Path) -> dict[str, Any]:
    """Ask with point number `point` of the first scene: heat maps of all scenes, and their best matches.

    Raises:
        RecipeError: the scene has no such point.
    """
    out.mkdir(parents=True, exist_ok=True)
    asked = scenes[0]
    if not 0 <= point < len(asked.xyz):
        raise RecipeError(f"scene {asked.key} has points 0..{len(asked.xyz) - 1}, not {point}")
    feature = asked.features[asked.row[point]]
    values = [similarity(feature, scene) for scene in scenes]
    floor = float(torch.cat(values).median())  # half of all rows are plain blue
    entries = []
    for scene, value in zip(scenes, values, strict=True):
        matches = best_matches(scene, value, exclude=asked.xyz[point] if scene is asked else None)
        warmth = ((value - floor) / max(1 - floor, 1e-6)).clamp(0, 1)
        heat = turbo((0.07 + 0.85 * warmth).numpy())[scene.row.numpy()]  # Turbo's ends are too dark
        marks = [(match.point, _MATCH) for match in matches] + ([(point, _QUERY)] if scene is asked else [])
        files = []
        for view in ("top", "oblique"):
            name = f"{scene.name}-query-{point}-{view}.png"
            _save(picture(scene, heat, view, marks), out / name)
            files.append({"file": name, "caption": f"Similarity to point {point} of {asked.key}, {_VIEWS[view]}"})
        entries.append({"scene": scene.key, "pictures": files, "matches": [vars(match) for match in matches]})
    return {"scene": asked.key, "point": point, "xyz": [float(v) for v in asked.xyz[point]], "scenes": entries}


def write_ply(path: Path, xyz: NDArray[np.float32], colours: RGB) -> None:
    """Points with colours as binary little-endian PLY."""
    rows = np.empty(len(xyz), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = xyz, colours
    names = [*(f"property float {axis}" for axis in "xyz"), *(f"property uchar {c}" for c in ("red", "green", "blue"))]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *names, "end_header", ""]
    write_whole(path, "\n".join(head).encode() + rows.tobytes())


def _save(canvas: RGB, path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(canvas)).save(data, "PNG")
    write_whole(path, data.getvalue())
