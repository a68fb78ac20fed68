"""Are the pictures read in the right frame? A mirrored or turned room looks as good as the right one.

Tools read this dataset in ways that contradict each other: documents say that panoramas look along -y, the most used
preprocessing writes the rooms as their mirror image, and whether depth runs along rays or along the axis is said
nowhere. So what can be told from a room itself is asked of it:

* The corners of the room's layout, as marked in the panorama, against the annotated junctions, as projected into it:
  they meet within `NEAR_PX`. If they meet only in a picture that is turned by a quarter or mirrored, the room is
  refused. Rooms whose layout the errata call wrong are not asked.
* What the panorama measured on walls, floors and ceilings, against the annotated planes of the room. Where most of it
  lies elsewhere, that is counted: a depth image of another room.
* Each perspective picture against the points of the panorama. One that contradicts them is left out and counted. But
  the room is refused if it agrees once depth or panorama are read in another way; and if all contradict, unless the
  panorama is the one that lies off the planes: then that is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.agreement import MIN_PROBES, NEAREST, TOLERANCE
from brickyard.ingest.structured3d.cameras import MILLIMETRE
from brickyard.ingest.structured3d.files import MAX_ANNOTATION, MAX_TEXT, REPORT, RoomFiles
from brickyard.ingest.structured3d.plan import errata
from brickyard.shards.cameras import depth_camera, project
from brickyard.shards.errors import NONSENSE, RawDataError
from brickyard.shards.scene import DepthAxis, Float32, Float64, View

NEAR_PX = 4.0
"""Median distance of layout corners and junctions, in pixels of a panorama of 1024 columns."""
NEAR_M = 0.05
"""Of a point and the plane that it lies on."""
MOSTLY = 0.5
CONVINCING = 0.9
"""Share of points that must agree before another reading is believed."""
MIN_POINTS = 20 * MIN_PROBES
STRUCTURE = (1, 2, 22)
"""NYU40: wall, floor, ceiling."""
LAYOUT, PLANES = "room whose layout was not held against the annotation", "panorama whose depth lies off the planes"
CONTRADICTED = "perspective picture whose depth contradicts the panorama"


@dataclass(frozen=True)
class Reading:
    """Which world axes the right half and the middle of a panorama look along; "+x" and "+y" is ours."""

    right: str
    forward: str

    @property
    def axes(self) -> Float64:
        """(3, 3), rows: right, forward, up."""
        return np.array([_axis(self.right), _axis(self.forward), (0.0, 0, 1)])


def _axis(name: str) -> tuple[float, float, float]:
    sign = 1.0 if name[0] == "+" else -1.0
    return (sign, 0.0, 0.0) if name[1] == "x" else (0.0, sign, 0.0)


OURS = Reading("+x", "+y")
OTHERS = tuple(
    Reading(one, other)
    for right, forward in (("x", "y"), ("y", "x"))
    for one in (f"+{right}", f"-{right}")
    for other in (f"+{forward}", f"-{forward}")
    if (one, other) != ("+x", "+y")
)


@dataclass(frozen=True)
class Structure:
    """The annotated shell of a room in metres: junctions (K, 3) of its floors and ceilings; of each plane its unit
    normal (P, 3) and its offset (P,), n . p + offset = 0."""

    floor: Float64
    ceiling: Float64
    normal: Float64
    offset: Float64

    def annotation(self, origin: Float64) -> dict[str, Any]:
        """As "layout" in `shards.annotations`, in the frame whose origin lies at (3,) of the world."""
        known = np.isfinite(self.offset)
        planes = zip(self.normal[known], self.offset[known] + self.normal[known] @ origin, strict=True)
        return {
            "floor": (self.floor - origin).tolist(),
            "ceiling": (self.ceiling - origin).tolist(),
            "planes": [{"normal": normal.tolist(), "offset": float(offset)} for normal, offset in planes],
        }


def read_structure(files: RoomFiles, dropped: Counter[str]) -> Structure | None:
    """The shell of the room; None, counted, where there is none."""
    if not files.has("annotation"):
        dropped[f"{LAYOUT}: there is none"] += 1
        return None
    try:
        structure = _structure(files, files.raw.ref.details["room"])
    except RawDataError:
        dropped[f"{LAYOUT}: the annotation is damaged"] += 1
        return None
    if structure is None:
        dropped[f"{LAYOUT}: it does not have this room"] += 1
    return structure


def _structure(files: RoomFiles, room: str) -> Structure | None:
    """None where the annotation has no planes of the room. Raises `RawDataError` if it is damaged."""
    data = files.read("annotation", MAX_ANNOTATION)
    try:
        table = json.loads(data)
        junctions = np.array([entry["coordinate"] for entry in table["junctions"]], np.float64) * MILLIMETRE
        chosen = sorted({p for entry in table["semantics"] if entry["ID"] == int(room) for p in entry["planeID"]})
        if not chosen:
            return None
        lines = np.array(table["planeLineMatrix"], bool)[chosen]
        on_line = np.array(table["lineJunctionMatrix"], bool)
        if lines.ndim != 2 or on_line.shape != (lines.shape[1], len(junctions)) or chosen[0] < 0:
            raise ValueError("matrices of other sizes than the lists of planes, lines and junctions")
        kinds = [table["planes"][p]["type"] for p in chosen]
        normal = np.array([table["planes"][p]["normal"] for p in chosen], np.float64)
        corners = [junctions[on_line[row].any(axis=0)] for row in lines]
        if not np.isfinite(junctions).all() or junctions.shape[1] != 3 or normal.shape != (len(chosen), 3):
            raise ValueError("numbers that are no coordinates")
        offset = np.array([-(c @ n).mean() if len(c) else np.inf for c, n in zip(corners, normal, strict=True)])
        ends = [
            np.concatenate([junctions[:0], *(c for c, kind in zip(corners, kinds, strict=True) if kind == wanted)])
            for wanted in ("floor", "ceiling")
        ]
    except NONSENSE as problem:
        raise files.error("annotation", f"no annotation of planes, lines, junctions: {problem}"[:200]) from None
    return Structure(ends[0], ends[1], normal, offset)


def read_layout(files: RoomFiles) -> tuple[Float64, Float64]:
    """Corners (column, row) of the panorama: (K, 2) on the ceiling, (K, 2) on the floor."""
    text = files.read("panorama/layout", MAX_TEXT)
    try:
        rows = [[float(word) for word in line.split()] for line in text.splitlines() if line.strip()]
        corners = np.array(rows, np.float64)
        if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) % 2 or not np.isfinite(corners).all():
            raise ValueError("no pairs of corners")
    except NONSENSE as problem:
        raise files.error("panorama/layout", f"expected a column and a row a line: {problem}"[:200]) from None
    return corners[::2], corners[1::2]


def check_panorama(
    files: RoomFiles,
    structure: Structure | None,
    panorama: tuple[View, Float64],
    world: tuple[Float32, NDArray[np.uint8] | None],
    dropped: Counter[str],
) -> bool:
    """Hold the panorama against the annotated shell of its room, where there is one.

    Args:
        panorama: its view, and where it was taken from, (3,) in metres of the world.
        world: points (N, 3) that it measured, in the world, and their NYU40 ids, None without labels.

    Returns:
        False where its depth does not lie on the annotated planes.

    Raises:
        RawDataError: only another reading fits its layout.
    """
    view, place = panorama
    if structure is None:
        return True
    if files.raw.ref.scene_id in errata()["wrong layouts"]:
        dropped[f"{LAYOUT}: the errata call it wrong"] += 1
    elif not files.has("panorama/layout"):
        dropped[f"{LAYOUT}: there is no layout"] += 1
    else:
        _check_layout(files, structure, view, place, dropped)
    points, labels = world
    on_planes = labels is None or _on_planes(points[np.isin(labels, STRUCTURE)], structure)
    dropped[PLANES] += not on_planes
    return on_planes


def _check_layout(files: RoomFiles, structure: Structure, view: View, place: Float64, dropped: Counter[str]) -> None:
    try:
        ceiling, floor = read_layout(files)
    except RawDataError:
        dropped[f"{LAYOUT}: the layout is damaged"] += 1
        return
    shells = [(ceiling, structure.ceiling - place), (floor, structure.floor - place)]
    limit = NEAR_PX * view.width / 1024
    misses = {reading: layout_distance(shells, reading, (view.width, view.height)) for reading in (OURS, *OTHERS)}
    if misses[OURS] <= limit:
        return
    best = min(OTHERS, key=lambda reading: misses[reading])
    if misses[best] > limit:
        dropped[f"{LAYOUT}: its corners are elsewhere in any reading"] += 1
        return
    problem = (
        f"the corners of the layout meet the annotated ones within {misses[best]:.1f} pixels if the middle of the "
    )
    problem += (
        f"panorama looks along {best.forward} and its right half along {best.right}, but not ({misses[OURS]:.0f} "
    )
    raise files.error("panorama/layout", f"{problem}pixels) if along +y and +x, as every room should", REPORT)


def layout_distance(shells: list[tuple[Float64, Float64]], reading: Reading, size: tuple[int, int]) -> float:
    """Median distance in pixels of layout corners (K, 2) from the nearest projection of junctions (J, 3), which are
    relative to the camera; infinite without any. Columns go around."""
    width, height = size
    distances: list[float] = []
    for corners, junctions in shells:
        if not len(corners) or not len(junctions):
            continue
        right, forward, up = reading.axes @ junctions.T
        column = (np.arctan2(right, forward) / (2 * np.pi) + 0.5) * width - 0.5
        row = (0.5 - np.arctan2(up, np.hypot(right, forward)) / np.pi) * height - 0.5
        across = np.abs(corners[:, :1] - column)
        across = np.minimum(across, np.abs(width - across))
        distances += np.hypot(across, corners[:, 1:] - row).min(axis=1).tolist()
    return float(np.median(distances)) if distances else np.inf


def _on_planes(points: Float32, structure: Structure) -> bool:
    probes = points[:: max(1, len(points) // 5000)]
    if len(probes) < 100:
        return True
    off = np.abs(probes @ structure.normal.T + structure.offset).min(axis=1)
    return bool((off < NEAR_M).mean() >= MOSTLY)


@dataclass(frozen=True)
class Meeting:
    """Of the panorama's points that fall on measured pixels of a perspective picture: how many lie on its surfaces, and
    how many in front of them, where its camera saw through. What lies behind is hidden and says nothing."""

    on: int
    before: int

    @property
    def share(self) -> float:
        return self.on / max(1, self.on + self.before)


def meet(view: View, xyz: Float32) -> Meeting:
    """Hold points (N, 3) against the depth of a view in the same frame, with the tolerances of `ingest.agreement`."""
    assert view.depth is not None
    height, width = view.depth.values.shape
    seen = project(xyz, depth_camera(view, view.depth))
    reach, pixel = seen.along(view.depth.along), np.rint(np.nan_to_num(seen.uv, nan=-1.0, posinf=-1.0, neginf=-1.0))
    inside = (reach > NEAREST) & (pixel >= 0).all(axis=1) & (pixel < (width, height)).all(axis=1)
    column, row = pixel[inside].astype(np.int64).T
    measured = view.depth.values[row, column] * view.depth.scale
    beyond, tolerance = reach[inside] - measured, TOLERANCE * (1 + measured / 2.5)
    known = measured > 0
    return Meeting(int((known & (np.abs(beyond) <= tolerance)).sum()), int((known & (beyond < -tolerance)).sum()))


def contradicts(files: RoomFiles, view: View, xyz: Float32, place: Float64, least: float) -> bool:
    """Whether a perspective view contradicts the panorama's points, or sees none of what is around them.

    Args:
        view: with depth, in the frame of the points.
        xyz: (N, 3), points of the panorama; a few of them say nothing.
        place: (3,), where it was taken from, in the same frame.
        least: share of the points at or in front of the surfaces that must lie on them.

    Raises:
        RawDataError: it does, and would not if depth or panorama were read in another way.
    """
    found = meet(view, xyz)
    if len(xyz) < MIN_POINTS or (found.share >= least and found.on >= MIN_PROBES):
        return False
    for how, other, points in _other_ways(view, xyz, place):
        better = meet(other, points)
        if better.share >= CONVINCING and better.on >= MIN_PROBES:
            shares = f"{found.share:.0%} of the panorama's points, and with {better.share:.0%} if {how}"
            role = view.name.replace("-", "/") + "/depth"
            raise files.error(role, f"its depth agrees with {shares}", REPORT)
    return True


def _other_ways(view: View, xyz: Float32, place: Float64) -> Iterator[tuple[str, View, Float32]]:
    assert view.depth is not None
    along: DepthAxis = "z" if view.depth.along == "ray" else "ray"
    yield "it were measured along the rays", replace(view, depth=replace(view.depth, along=along)), xyz
    for reading in OTHERS:
        turned = ((xyz - place) @ OURS.axes.T) @ reading.axes + place
        how = f"the middle of the panorama looked along {reading.forward} and its right half along {reading.right}"
        yield how, view, turned.astype(np.float32)
