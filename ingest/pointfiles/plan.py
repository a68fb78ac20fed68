"""Lists the point files below a folder; with `tile_m` or `max_points`, the parts of those that are too large.

Of a LAS, LAZ or COPC file the header is read, which tells how many points it has and whether their unit is known: a
file in degrees, or in an unknown unit, is refused here and not after hours of a build. To cut it, its bounds are cut
into columns (x) and rows (y); the outermost squares are open to the outside, so that bounds that lie lose no point.
Every square is read by going through the whole file: n squares cost n readings, the memory is that of one square; one
that turns out to be empty is no scene. The octree of a COPC file is not used for that: it is one more thing that may
lie, and points it hides would be lost. PLY and PCD have no bounds in their headers, and nothing of them is opened
unless they are to be cut: with `max_points` into strips, at the cost of reading (and holding) the whole file for each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import get_args

from brickyard.ingest.pointfiles import las, unread
from brickyard.ingest.pointfiles.cloud import Scale
from brickyard.ingest.pointfiles.text import unix_lines
from brickyard.ingest.pointfiles.views import find_transforms
from brickyard.ingest.source import Missing, RawFiles, SceneRef
from brickyard.shards.errors import RawDataError, RecipeError
from brickyard.shards.scene import Domain
from brickyard.shards.storage import Store
from brickyard.shards.taxonomy import taxonomy_names

DATASET = "pointfiles"
BYTES_PER_POINT = {"las": 30, "laz": 6, "ply": 16, "pcd": 16}
"""Suffixes that are read, with typical sizes for planning. COPC files end in .copc.laz."""
BYTES_PER_IMAGE = 400_000
MAX_TILES = 10_000
PEEK_BYTES = 4096
PARALLEL = 16
"""Headers that are asked of an object store at a time."""
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
        metres_per_unit: length of the files' unit of coordinates; None takes the units of a LAS file's coordinate
            system, and metres where there is none. A coordinate system of no known unit is refused.
        metres_per_height_unit: length of the files' unit of heights; None takes `metres_per_unit` if that is given,
            else the vertical unit of a LAS file's coordinate system, else (counted) the unit of x and y.
        taxonomy: label set of labels in PLY and PCD files (columns such as `classification`, `label`). None takes only
            those beside the return numbers of LAS, for ASPRS classes, and counts the others.
    """

    licence: str = "LicenseRef-unknown"
    domain: Domain = "outdoor"
    version: str = "1"
    tile_m: float | None = None
    max_points: int | None = None
    overlap_m: float = 0.0
    max_views: int = 64
    metres_per_unit: float | None = None
    metres_per_height_unit: float | None = None
    taxonomy: str | None = None

    def __post_init__(self) -> None:
        for name in ("tile_m", "metres_per_unit", "metres_per_height_unit"):
            value = getattr(self, name)
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
        if self.taxonomy not in (None, *taxonomy_names()):
            raise RecipeError(
                f"pointfiles options: taxonomy {self.taxonomy!r} is none of {', '.join(taxonomy_names())}"
            )


def plan(store: Store, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    """All point files in the order of their paths, tiles by column and row; `RecipeError` if there are none.

    Yields a `Missing` for a file whose coordinates are degrees or have no known unit, or that cannot be cut into at
    most `MAX_TILES` tiles, and in the end a `Notice` for each suffix of point clouds and meshes that are not read. A
    file whose header cannot be read is planned whole, so that reading it says what is wrong.
    """
    paths = list(store.walk())
    known = set(paths)
    refs = [
        _whole(store, path, suffix, find_transforms(path, known), options)
        for path in paths
        if (suffix := path.rpartition(".")[2].lower()) in BYTES_PER_POINT
    ]
    notices = list(unread.notices(DATASET, paths, BYTES_PER_POINT))
    if not refs:
        raise RecipeError(
            f"no point files in {store.uri}: expected names that end in {', '.join(BYTES_PER_POINT)}"
            + "".join(f"; {notice.reason}" for notice in notices)
        )
    for ref, header in zip(refs, _headers(store, refs), strict=True):
        if header is not None:
            yield from _plan_las(ref, header, options)
        elif options.max_points is None or ref.details["format"] == "las":
            yield ref
        else:
            yield from _plan_strips(ref, options)
    yield from notices


def _headers(store: Store, refs: list[SceneRef]) -> Iterator[las.LasHeader | None]:
    """The header of each LAS file, None where it cannot be read; many at a time where an answer takes its time."""
    if store.local:
        yield from map(_header, refs)
        return
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="brickyard-headers") as pool:
        yield from pool.map(_header, refs)


def _header(ref: SceneRef) -> las.LasHeader | None:
    if ref.details["format"] != "las":
        return None
    files = RawFiles(ref)
    try:
        return las.read_header(files, ref.files["points"])
    except RawDataError:
        return None
    finally:
        files.store.close()


def _whole(
    store: Store, path: str, suffix: str, transforms: str | None, options: PointFilesOptions
) -> SceneRef:  # fmt: skip
    size = store.size(path) or 0
    return SceneRef(
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
            "metres_per_height_unit": options.metres_per_height_unit,
            "taxonomy": options.taxonomy,
            "max_views": options.max_views,
            "tile": None,
        },
        points_estimate=max(1, size // BYTES_PER_POINT[suffix]),
        bytes_estimate=size + (options.max_views * BYTES_PER_IMAGE if transforms else 0),
    )


def _plan_las(whole: SceneRef, header: las.LasHeader, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    found = header.scale_to_metres(options.metres_per_unit, options.metres_per_height_unit)
    if found is None:
        reason = f"{whole.scene_id}: {header.units.problem} ({las.UNIT_HINT})"
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    whole = replace(whole, points_estimate=max(1, header.count))
    if not header.count or (options.tile_m is None and header.count <= (options.max_points or header.count)):
        yield whole
    else:
        yield from _plan_squares(whole, header, found[0], options)


def _declared(ref: SceneRef) -> int:
    """Points that the header of a PLY or PCD file declares, as far as the size of the file allows for; else a guess."""
    files, path = RawFiles(ref), ref.files["points"]
    try:
        size = files.size(path)
        match = _COUNT.search(unix_lines(files.read_range(path, 0, min(size, PEEK_BYTES))))
    except RawDataError:
        return ref.points_estimate
    finally:
        files.store.close()
    count = int(match[1]) if match else 0
    return count if 0 < count <= size else ref.points_estimate


def _plan_strips(whole: SceneRef, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    points = _declared(whole)
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


def _plan_squares(
    whole: SceneRef, header: las.LasHeader, scale: Scale, options: PointFilesOptions
) -> Iterator[SceneRef | Missing]:
    bounds = [(low * scale.flat, high * scale.flat) for low, high in header.bounds[:2]]
    (low_x, high_x), (low_y, high_y) = bounds
    if header.count > 1 and low_x == high_x == low_y == high_y == 0:
        reason = (
            f"{whole.scene_id} cannot be cut into tiles: its header gives no bounds (write the file again with them)"
        )
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    edge = options.tile_m
    if edge is None:
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
