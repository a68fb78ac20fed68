"""Lists the pieces of all buildings: the table of contents of each GLB names its chunks, and so the pieces.

There is no list of pieces, and their size in points is known only once all triangles have been read. The estimate is
the surface of the box around each chunk, which the table of contents tells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np

from brickyard.ingest.hm3d.glb import Glb, Primitive
from brickyard.ingest.hm3d.names import BUILDING, piece_of, roles, split_of
from brickyard.ingest.source import Missing, Notice, RawFiles, SceneRef
from brickyard.shards.errors import NONSENSE, RawDataError, RecipeError
from brickyard.shards.storage import Store

DATASET = "hm3d"
WHOLE = "whole"
ARCHIVE = "take the archive hm3d-<split>-glb"
_MOST_FOLDERS = 64


@dataclass(frozen=True, kw_only=True)
class HM3DOptions:
    """What to take from a building.

    Attributes:
        pieces: cut buildings by the groups and sub-groups in the names of their chunks; false makes whole buildings.
        largest: keep so many pieces of all, those that are largest by what planning knows; 0 keeps all. (The published
            10,000 are the largest by their points, which are known only when they are made: nearly the same ones.)
        density_m: one point for every square of this edge, metres.
        labels: classes and instances, where a building is annotated.
        version: of the release that meshes and annotations are of, for the record; they must not be mixed.
    """

    pieces: bool = True
    largest: int = 0
    density_m: float = 0.02
    labels: bool = True
    version: str = "0.2"

    def __post_init__(self) -> None:
        checks = (
            (0.002 <= self.density_m <= 1, f"density_m must be 0.002..1, found {self.density_m}"),
            (self.largest >= 0, f"largest must not be negative, found {self.largest}"),
            (self.pieces or not self.largest, "largest is about pieces: leave it out, or set pieces to true"),
            (re.fullmatch(r"[0-9a-z.]{1,10}", self.version), f"version cannot be {self.version!r}"),
        )
        for holds, problem in checks:
            if not holds:
                raise RecipeError(f"hm3d options: {problem}")


@dataclass
class _Building:
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def plan(store: Store, options: HM3DOptions) -> Iterator[SceneRef | Missing]:
    """All pieces, in the order of buildings and of their names.

    Yields a `Missing` for a building whose mesh is not there or cannot be opened, a `Notice` for chunks whose names say
    no piece. Raises `RawDataError` if the root holds no building.
    """
    buildings = _buildings(store)
    if not buildings:
        raise RawDataError(
            "no building of HM3D is here", dataset=DATASET, path=store.uri,
            hint="the root holds folders such as 00861-GLAQ4DNUx5U, or folders that hold those",
        )  # fmt: skip
    found = (item for name, known in sorted(buildings.items()) for item in _building(store, name, known, options))
    if not options.largest:
        yield from found
        return
    items = list(found)
    refs = [item for item in items if isinstance(item, SceneRef)]
    order = sorted(range(len(refs)), key=lambda k: (-refs[k].points_estimate, refs[k].scene_id))
    kept = {refs[k].scene_id for k in islice(order, options.largest)}
    yield from (item for item in items if isinstance(item, Missing) or item.scene_id in kept)
    if len(refs) > len(kept):
        reason = f"{len(refs) - len(kept)} pieces are smaller than the {len(kept)} largest, as `largest` says"
        yield Notice(dataset=DATASET, scene_id="largest", reason=reason)


def _buildings(store: Store) -> dict[str, _Building]:
    """Name -> its files, put together from the root and from the folders in it; the first of each role counts."""
    found: dict[str, _Building] = {}

    def look(folder: str) -> None:
        for entry in store.list(folder):
            name = entry.rstrip("/")
            if entry.endswith("/") and BUILDING.fullmatch(name):
                path = f"{folder}/{name}" if folder else name
                known, wanted = found.setdefault(name, _Building()), roles(name.partition("-")[2])
                for file, size in sorted(store.sizes(path).items()):
                    if (role := wanted.get(file)) is not None and role not in known.files:
                        known.files[role], known.sizes[role] = f"{path}/{file}", size

    look("")
    others = [entry.rstrip("/") for entry in store.list() if entry.endswith("/")]
    for folder in [name for name in others if not BUILDING.fullmatch(name)][:_MOST_FOLDERS]:
        look(folder)
    return found


def _building(store: Store, name: str, known: _Building, options: HM3DOptions) -> Iterator[SceneRef | Missing]:
    if "mesh" not in known.files:
        there = "only textures of Basis Universal, which are not read" if "basis" in known.files else "no mesh"
        yield Missing(dataset=DATASET, scene_id=name, reason=f"{there}: {ARCHIVE}")
        return
    labelled = options.labels and {"semantic", "names"} <= known.files.keys()
    files = {role: known.files[role] for role in ("mesh", *(("semantic", "names") if labelled else ()))}
    whole = SceneRef(
        dataset=DATASET, scene_id=name, split=split_of(name), sequence=name, root=store.uri, files=files,
        details={"options": asdict(options), "piece": WHOLE},
        bytes_estimate=sum(known.sizes[role] for role in files),
    )  # fmt: skip
    raw = RawFiles(whole)
    try:
        glb = Glb(raw, files["mesh"])
        sizes = [(primitive, *_size(glb, primitive, options.density_m)) for primitive in glb.primitives()]
    except RawDataError as problem:
        yield Missing(dataset=DATASET, scene_id=name, reason=str(problem))
        return
    finally:
        raw.store.close()
    pieces: dict[str, list[tuple[int, int]]] = {}
    unnamed = 0
    for primitive, points, weight in sizes:
        piece = piece_of(primitive.name) if options.pieces else WHOLE
        unnamed += piece is None
        if piece is not None:
            pieces.setdefault(piece, []).append((points, weight))
    if unnamed:
        reason = f"{unnamed} of {len(sizes)} chunks are not called chunk###_group###_sub###: they are in no piece"
        yield Notice(dataset=DATASET, scene_id=name, reason=reason)
    total = max(1, sum(weight for _, _, weight in sizes))
    for piece, parts in sorted(pieces.items()):
        share = sum(weight for _, weight in parts) / total
        yield SceneRef(
            dataset=DATASET, scene_id=f"{name}/{piece}" if options.pieces else name, split=whole.split, sequence=name,
            root=store.uri, files=files, details={"options": asdict(options), "piece": piece},
            points_estimate=max(1, sum(points for points, _ in parts)),
            bytes_estimate=max(1, int(whole.bytes_estimate * share)),
        )  # fmt: skip


def _size(glb: Glb, primitive: Primitive, density_m: float) -> tuple[int, int]:
    """(points, vertices and corners) of a chunk, as far as the table of contents tells."""
    entry = glb.part(primitive)
    position = glb.entry("accessors", entry["attributes"].get("POSITION"))
    weight = glb.count(entry["attributes"]["POSITION"]) + (glb.count(entry["indices"]) if "indices" in entry else 0)
    try:
        x, y, z = np.array(position["max"], np.float64) - np.array(position["min"], np.float64)
        area = 2 * float(x * y + y * z + z * x)
    except NONSENSE:
        area = weight / 100
    return int(min(max(area, 0.0), 1e6) / density_m**2) if np.isfinite(area) else 1, weight
