"""Lists the point files below a folder; with `tile_m` or `max_points`, the parts of those that are too large.

Unless files are to be cut, nothing is opened. To cut a LAS, LAZ or COPC file its header is read, and its bounds are cut
into columns (x) and rows (y); the outermost squares are open to the outside, so that bounds that lie lose no point.
Every square is read by going through the whole file: n squares cost n readings, the memory is that of one square. The
octree of a COPC file is not used for that: it is one more thing that may lie, and points it hides would be lost. PLY
and PCD have no bounds in their headers: with `max_points` they are cut into strips, at the cost of reading (and
holding) the whole file for each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

from ingest.pointfiles import las
from ingest.pointfiles.views import find_transforms
from ingest.source import Missing, RawFiles, SceneRef
from shards.errors import RawDataError, RecipeError
from shards.scene import Domain
from shards.storage import Store

DATASET = "pointfiles"
BYTES_PER_POINT = {"las": 30, "laz": 6, "ply": 16, "pcd": 16}
"""Suffixes that are read, with typical sizes for planning. COPC files end in .copc.laz."""
BYTES_PER_IMAGE = 400_000
MAX_TILES = 10_000
PEEK_BYTES = 4096
_COUNT = re.compile(rb"^(?:element vertex|POINTS) +([0-9]{1,12})\b", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class PointFilesOptions:
    """What is known about the files that they do not say themselves.

    Attributes:
        licence: SPDX id or LicenseRef of all files below the root.
        domain: "indoor", "outdoor", "object" or "video".
        version: release of the collection, for the record.
        tile_m: cut LAS files into squares of this edge, metres.
        max_points: cut files with more points: LAS into squares that hold as many on average (where `tile_m` is not
            given), PLY and PCD into strips. None, like `tile_m` None, keeps them whole.
        overlap_m: parts also hold the points this far outside of their core, metres.
        max_views: posed images of a scene, at most.
        metres_per_unit: length of the files' unit of coordinates; None takes the linear unit of a LAS file's
            coordinate system, and metres where none is given.
    """

    licence: str = "LicenseRef-unknown"
    domain: Domain = "outdoor"
    version: str = "1"
    tile_m: float | None = None
    max_points: int | None = None
    overlap_m: float = 0.0
    max_views: int = 64
    metres_per_unit: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("tile_m", self.tile_m), ("metres_per_unit", self.metres_per_unit)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RecipeError(f"pointfiles options: {name} must be a positive number, found {value}")
        if not (math.isfinite(self.overlap_m) and self.overlap_m >= 0) or self.max_views < 0:
            raise RecipeError("pointfiles options: overlap_m and max_views must not be negative")
        if self.max_points is not None and self.max_points < 1:
            raise RecipeError(f"pointfiles options: max_points must be positive, found {self.max_points}")
        if self.domain not in get_args(Domain) or not self.licence:
            raise RecipeError(
                f"pointfiles options: licence is empty or domain is none of {', '.join(get_args(Domain))}"
            )


def plan(store: Store, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    """All point files in the order of their paths, tiles by column and row; `RecipeError` if there are none.

    Yields a `Missing` for a file that would fall into more than `MAX_TILES` tiles. A file whose header cannot be read
    is planned whole, so that reading it says what is wrong.
    """
    found = False
    paths = list(store.walk())
    known = set(paths)
    for path in paths:
        suffix = path.rpartition(".")[2].lower()
        if suffix in BYTES_PER_POINT:
            found = True
            yield from _plan_file(store, path, suffix, find_transforms(path, known), options)
    if not found:
        raise RecipeError(f"no point files in {store.uri}: expected names that end in {', '.join(BYTES_PER_POINT)}")


def _plan_file(
    store: Store, path: str, suffix: str, transforms: str | None, options: PointFilesOptions
) -> Iterator[SceneRef | Missing]:
    size = store.size(path) or 0
    whole = SceneRef(
        dataset=DATASET,
        scene_id=path,
        split="none",
        sequence=path,
        root=store.uri,
        files={"points": path} | ({"transforms": transforms} if transforms else {}),
        details={
            "format": "las" if suffix == "laz" else suffix,
            "licence": options.licence,
            "domain": options.domain,
            "version": options.version,
            "metres_per_unit": options.metres_per_unit,
            "max_views": options.max_views,
            "tile": None,
        },
        points_estimate=max(1, size // BYTES_PER_POINT[suffix]),
        bytes_estimate=size + (options.max_views * BYTES_PER_IMAGE if transforms else 0),
    )
    if options.max_points is None and (options.tile_m is None or whole.details["format"] != "las"):
        yield whole
        return
    files = RawFiles(whole)
    try:
        if whole.details["format"] == "las":
            yield from _plan_squares(whole, las.read_header(files, path), options)
        else:
            yield from _plan_strips(whole, _declared(files, path), options)
    except RawDataError:
        yield whole
    finally:
        files.store.close()


def _declared(files: RawFiles, path: str) -> int:
    """Points that the header of a PLY or PCD file declares, as far as the size of the file allows for; else a guess."""
    size = files.size(path)
    match = _COUNT.search(files.read_range(path, 0, min(size, PEEK_BYTES)))
    count = int(match[1]) if match else 0
    return count if 0 < count <= size else files.ref.points_estimate


def _plan_strips(whole: SceneRef, points: int, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    strips = -(-points // (options.max_points or points))
    if strips == 1:
        yield replace(whole, points_estimate=points)
        return
    if strips > MAX_TILES:
        reason = f"{strips} strips of {options.max_points} points, at most {MAX_TILES} are planned: raise max_points"
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    for number in range(strips):
        yield replace(
            whole,
            scene_id=f"{whole.scene_id}/strip-{number}",
            details=dict(whole.details) | {"tile": {"strip": number, "strips": strips, "overlap": options.overlap_m}},
            points_estimate=-(-points // strips),
        )


def _plan_squares(whole: SceneRef, header: las.LasHeader, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    unit = whole.details["metres_per_unit"] or header.metres_per_unit
    bounds = [(low * unit, high * unit) for low, high in header.bounds]
    (low_x, high_x), (low_y, high_y) = bounds
    edge = options.tile_m
    if edge is None:
        if header.count <= (options.max_points or 0):
            yield replace(whole, points_estimate=max(1, header.count))
            return
        area = (high_x - low_x) * (high_y - low_y)
        edge = math.sqrt(area * (options.max_points or 1) / header.count) if 0 < area < math.inf else math.nan
    extents = [(high - low) / edge if edge else math.inf for low, high in bounds]
    if not all(0 <= extent < MAX_TILES for extent in extents):
        reason = f"bounds x {low_x} .. {high_x}, y {low_y} .. {high_y} m of {whole.scene_id} cannot be cut into tiles"
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    columns, rows = (max(1, math.ceil(extent)) for extent in extents)
    if columns * rows > MAX_TILES:
        reason = f"{columns} x {rows} tiles of {edge:g} m, at most {MAX_TILES} are planned: larger tiles are needed"
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    for column in range(columns):
        for row in range(rows):
            tile = {
                "x": low_x, "y": low_y, "edge": edge, "columns": columns, "rows": rows, "column": column, "row": row,
                "overlap": options.overlap_m,
            }  # fmt: skip
            yield replace(
                whole,
                scene_id=f"{whole.scene_id}/tile-{column}-{row}",
                details=dict(whole.details) | {"tile": tile},
                points_estimate=max(1, header.count // (columns * rows)),
            )
