"""One piece of a building -> Scene: points drawn on its triangles, with colour, normal, class and instance.

Files are z up, in metres (contrary to what glTF says, and as the dataset's own configuration says). The scene frame has
those axes, with its origin at whole metres near the piece; `world_from_scene` leads back. The semantic mesh has the
same triangles under other textures and other texture coordinates: a point takes the label of the texel at the same
place of the same triangle. Where its triangles lie elsewhere, it is of another release, and nothing is labelled by it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.hm3d.glb import Glb, Primitive
from brickyard.ingest.hm3d.names import chunk_number, piece_of
from brickyard.ingest.hm3d.plan import WHOLE
from brickyard.ingest.hm3d.semantics import TAXONOMY, Annotation, read_annotation
from brickyard.ingest.hm3d.surface import Draw, Mesh, areas, draw, read_mesh, unit
from brickyard.ingest.hm3d.texture import Texture, read_texture
from brickyard.ingest.source import RawFiles, SceneRef
from brickyard.shards.errors import SceneError
from brickyard.shards.scene import UNLABELLED, Float64, Identity, Points, Scene

LICENCE = "LicenseRef-Matterport-Academic"
NORMALS = "mesh-vertex-barycentric"
MAX_POINTS = 60_000_000
SAME_M = 1e-3
UNTEXTURED = "chunk without a texture: its surface became no points"
UNPAIRED = "chunk without its semantic mesh: its points are unlabelled"
ELSEWHERE = "chunk whose semantic mesh has other triangles, perhaps of another release: its points are unlabelled"
UNKNOWN = "point whose semantic colour is not in the list: unlabelled"
LOST = "chunk of which a block reads as zeros: its surface became no points"
LOST_LABELS = "chunk of whose semantic mesh a block reads as zeros: its points are unlabelled"
MOVED = "chunk that its node moves"


@dataclass(frozen=True, eq=False)
class _Part:
    xyz: Float64
    color: NDArray[np.uint8]
    normal: NDArray[np.float32]
    semantic: NDArray[np.int16]
    instance: NDArray[np.int32]


class _Semantics:
    """The semantic mesh of a building."""

    def __init__(self, files: RawFiles, dropped: Counter[str]) -> None:
        self.annotation: Annotation = read_annotation(files, files.ref.files["names"], dropped)
        self._glb = Glb(files, files.ref.files["semantic"])
        self._textures: dict[int, Texture] = {}
        self._chunks: dict[str | int, Primitive] = {}
        for primitive in self._glb.primitives():
            self._chunks.setdefault(primitive.name, primitive)
            if (number := chunk_number(primitive.name)) is not None:
                self._chunks.setdefault(number, primitive)

    def colors(self, primitive: Primitive, mesh: Mesh, places: Draw, dropped: Counter[str]) -> NDArray[np.uint8] | None:
        """Semantic colours of places on a chunk, uint8 (N, 3); None, counted, where there are none."""
        number = chunk_number(primitive.name)
        other = self._chunks.get(primitive.name) or (None if number is None else self._chunks.get(number))
        if other is None:
            dropped[UNPAIRED] += 1
            return None
        texture = read_texture(self._glb, self._glb.part(other), self._textures)
        theirs = read_mesh(self._glb, other)
        if texture is None or theirs.uv is None or theirs.lost:
            dropped[LOST_LABELS if theirs.lost else UNPAIRED] += 1
            return None
        mine, same = mesh.xyz[mesh.faces], theirs.xyz[theirs.faces]
        if mine.shape != same.shape or not np.allclose(mine, same, rtol=0, atol=SAME_M):
            dropped[ELSEWHERE] += 1
            return None
        return texture.at(places.mixed(theirs, theirs.uv))


def read(ref: SceneRef) -> Scene:
    """Read the piece of a reference made by `plan`.

    Returns a validated Scene: points with colour, normals and, in annotated buildings, classes ("hm3d40") and instances
    (the annotation's numbers). Raises `RawDataError` for damaged files, and for a piece without a textured triangle.
    """
    files, options, dropped = RawFiles(ref), ref.details["options"], Counter[str]()
    path = ref.files["mesh"]
    try:
        glb = Glb(files, path)
        semantics = _Semantics(files, dropped) if "semantic" in ref.files else None
        chosen = [p for p in glb.primitives() if ref.details["piece"] in (WHOLE, piece_of(p.name))]
        parts, textures = [], dict[int, Texture]()
        for number, primitive in enumerate(chosen):
            key = f"{ref.key}/{number}/{primitive.name}"
            part = _part(glb, primitive, key, textures=textures, semantics=semantics, options=options, dropped=dropped)
            parts += [] if part is None else [part]
            if sum(len(p.xyz) for p in parts) > MAX_POINTS:
                raise files.error(path, f"more than {MAX_POINTS} points: raise density_m, or cut it into pieces")
        sources = files.sources()
    finally:
        files.store.close()
    if not sum(len(part.xyz) for part in parts):
        raise files.error(path, f"nothing of {ref.details['piece']} became a point ({len(chosen)} chunks)")
    xyz = np.concatenate([part.xyz for part in parts])
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    origin = np.rint([*(low + high)[:2] / 2, low[2]])
    world_from_scene = np.eye(4)
    world_from_scene[:3, 3] = origin
    semantic, instance = (np.concatenate([getattr(p, name) for p in parts]) for name in ("semantic", "instance"))
    scene = Scene(
        identity=Identity(
            dataset=ref.dataset, version=options["version"], split=ref.split, sequence=ref.sequence,
            scene_id=ref.scene_id, timestamp_ns=None, domain="indoor", licence=LICENCE, sources=sources,
        ),
        world_from_scene=world_from_scene,
        points=Points(
            xyz=(xyz - origin).astype(np.float32),
            color=np.concatenate([part.color for part in parts]),
            normal=np.concatenate([part.normal for part in parts]),
            normal_source=NORMALS,
            semantic={} if semantics is None else {TAXONOMY: semantic},
            instance=None if semantics is None else instance,
        ),
        dropped=dict(+dropped),
    )  # fmt: skip
    try:
        return scene.validate()
    except SceneError as problem:
        raise files.error(path, str(problem)) from problem


def _part(
    glb: Glb, primitive: Primitive, key: str, *, textures: dict[int, Texture], semantics: _Semantics | None,
    options: dict[str, Any], dropped: Counter[str],
) -> _Part | None:  # fmt: skip
    """The points of a chunk; None, counted, if it has no texture."""
    mesh = read_mesh(glb, primitive)
    dropped[MOVED] += not np.array_equal(primitive.world_from_mesh, np.eye(4))
    texture = read_texture(glb, glb.part(primitive), textures)
    if texture is None or mesh.uv is None or mesh.lost:
        dropped[LOST if mesh.lost else UNTEXTURED] += 1
        return None
    if (area := float(areas(mesh).sum())) / options["density_m"] ** 2 > MAX_POINTS:
        raise glb.wrong(f"mesh {primitive.name!r} has {area:.0f} square metres: more than {MAX_POINTS} points")
    places = draw(mesh, options["density_m"], key)
    semantic = np.full(len(places.face), UNLABELLED, np.int16)
    instance = np.zeros(len(places.face), np.int32)
    if semantics is not None and (colors := semantics.colors(primitive, mesh, places, dropped)) is not None:
        semantic, instance, unknown = semantics.annotation.of(colors)
        dropped[UNKNOWN] += unknown
    return _Part(
        places.mixed(mesh, mesh.xyz), texture.at(places.mixed(mesh, mesh.uv)),
        unit(places.mixed(mesh, mesh.normal)), semantic, instance,
    )  # fmt: skip
