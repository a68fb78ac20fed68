"""Lists the point files below a folder; with `tile_m`, also the square tiles of the LAS files among them.

Without tiles nothing is opened. With tiles the header of every LAS, LAZ and COPC file is read, and its bounds are cut
into columns (x) and rows (y); the outermost tiles are open to the outside, so that bounds that lie lose no point. Every
tile is read by going through the whole file: n tiles cost n readings, the memory is that of one tile. PLY and PCD have
no bounds in their headers and are never cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import get_args

from ingest.pointfiles import las
from ingest.source import Missing, RawFiles, SceneRef
from shards.errors import RawDataError, RecipeError
from shards.scene import Domain
from shards.storage import Store

DATASET = "pointfiles"
BYTES_PER_POINT = {"las": 30, "laz": 6, "ply": 16, "pcd": 16}
"""Suffixes that are read, with typical sizes for planning. COPC files end in .copc.laz."""
MAX_TILES = 10_000


@dataclass(frozen=True, kw_only=True)
class PointFilesOptions:
    """What is known about the files that they do not say themselves.

    Attributes:
        licence: SPDX id or LicenseRef of all files below the root.
        domain: "indoor", "outdoor", "object" or "video".
        version: release of the collection, for the record.
        tile_m: cut LAS files into squares of this edge, metres; None keeps files whole.
        metres_per_unit: length of the files' unit of coordinates; None takes the linear unit of a LAS file's
            coordinate system, and metres where none is given.
    """

    licence: str = "LicenseRef-unknown"
    domain: Domain = "outdoor"
    version: str = "1"
    tile_m: float | None = None
    metres_per_unit: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("tile_m", self.tile_m), ("metres_per_unit", self.metres_per_unit)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RecipeError(f"pointfiles options: {name} must be a positive number, found {value}")
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
    for path in store.walk():
        suffix = path.rpartition(".")[2].lower()
        if suffix in BYTES_PER_POINT:
            found = True
            yield from _plan_file(store, path, suffix, options)
    if not found:
        raise RecipeError(f"no point files in {store.uri}: expected names that end in {', '.join(BYTES_PER_POINT)}")


def _plan_file(store: Store, path: str, suffix: str, options: PointFilesOptions) -> Iterator[SceneRef | Missing]:
    size = store.size(path) or 0
    whole = SceneRef(
        dataset=DATASET,
        scene_id=path,
        split="none",
        sequence=path,
        root=store.path("") if store.local else store.uri,
        files={"points": path},
        details={
            "format": "las" if suffix == "laz" else suffix,
            "licence": options.licence,
            "domain": options.domain,
            "version": options.version,
            "metres_per_unit": options.metres_per_unit,
            "tile": None,
        },
        points_estimate=size // BYTES_PER_POINT[suffix],
        bytes_estimate=size,
    )
    if options.tile_m is None or whole.details["format"] != "las":
        yield whole
        return
    files = RawFiles(whole)
    try:
        header = las.read_header(files, path)
    except RawDataError:
        yield whole
    else:
        yield from _plan_tiles(whole, header, options.tile_m)
    finally:
        files.store.close()


def _plan_tiles(whole: SceneRef, header: las.LasHeader, tile_m: float) -> Iterator[SceneRef | Missing]:
    edge = tile_m / (whole.details["metres_per_unit"] or header.metres_per_unit)
    (low_x, high_x), (low_y, high_y) = header.bounds
    extents = ((high_x - low_x) / edge, (high_y - low_y) / edge)
    if not all(0 <= extent < MAX_TILES for extent in extents):
        reason = f"bounds x {low_x} .. {high_x}, y {low_y} .. {high_y} of {whole.scene_id} cannot be cut into tiles"
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    columns, rows = (max(1, math.ceil(extent)) for extent in extents)
    if columns * rows > MAX_TILES:
        reason = f"{columns} x {rows} tiles of {tile_m} m, at most {MAX_TILES} are planned: larger tiles are needed"
        yield Missing(dataset=DATASET, scene_id=whole.scene_id, reason=reason)
        return
    for column in range(columns):
        for row in range(rows):
            tile = {
                "x": low_x, "y": low_y, "edge": edge, "columns": columns, "rows": rows, "column": column, "row": row,
            }  # fmt: skip
            yield replace(
                whole,
                scene_id=f"{whole.scene_id}/tile-{column}-{row}",
                details=dict(whole.details) | {"tile": tile},
                points_estimate=header.count // (columns * rows),
            )
