"""What the formats have in common: columns of numbers -> a cloud of points with the fields of the contract.

Columns are found by the names that the usual writers give them (CloudCompare, PDAL, PCL, MeshLab). A column that is not
found by any name is not lost in silence: it is named and counted in `dropped`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from brickyard.ingest.pointfiles import fields
from brickyard.shards.scene import Float32, Float64

MAX_POINTS = 100_000_000
"""One scene: 2.4 GB of coordinates while it is read."""
LOST_BLOCKS = "points in lost blocks (runs of zero bytes)"
OUTSIDE = "points outside the header's bounds: kept"
ASPRS = "asprs"
Columns: TypeAlias = Mapping[str, NDArray[Any]]
ALIASES = {
    "red": ("red", "r", "diffuse_red"),
    "green": ("green", "g", "diffuse_green"),
    "blue": ("blue", "b", "diffuse_blue"),
    "f_dc_0": ("f_dc_0",),
    "f_dc_1": ("f_dc_1",),
    "f_dc_2": ("f_dc_2",),
    "packed": ("rgb", "rgba"),
    "intensity": ("intensity", "reflectance", "reflectivity", "remission"),
    "nx": ("nx", "normal_x", "normalx"),
    "ny": ("ny", "normal_y", "normaly"),
    "nz": ("nz", "normal_z", "normalz"),
    "labels": ("classification", "label", "labels", "class", "semantic", "semantic_label", "sem_class"),
    "return_number": ("returnnumber", "return_number"),
    "return_count": ("numberofreturns", "number_of_returns"),
    "time": ("gpstime", "gps_time"),
    "ring": ("ring",),
}
COLOURS = (("red", "green", "blue"), ("packed",), ("f_dc_0", "f_dc_1", "f_dc_2"))
NORMAL = ("nx", "ny", "nz")
THREES = {*NORMAL, *(field for group in COLOURS for field in group)}
PREFIX = "scalar_"
SHOWN = 6
"""Columns that are named in `dropped`."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Metres per unit of x and y, and of z."""

    flat: float = 1.0
    height: float = 1.0

    @property
    def xyz(self) -> Float64:
        return np.array([self.flat, self.flat, self.height])


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """N points as a file gives them.

    Attributes:
        xyz: float64 (N, 3), the file's coordinates in metres, finite.
        color: uint8 (N, 3) or None.
        normal: float32 (N, 3), unit length or zero, or None.
        intensity: float32 (N,), finite, or None; its unit is "unit" (0..1) or "raw".
        classes: int16 (N,) class ids, or None; `taxonomy` is their label set.
        ring: uint16 (N,), laser beam, or None.
        return_number, return_count: uint8 (N,), from 1 (0 unknown), or None.
        time_offset: float32 (N,), seconds after the earliest point, or None.
        timestamp_ns: time of the earliest point, nanoseconds of GPS time since 1980-01-06, or None.
        world_crs: name of the coordinate system, as text.
        scale: what the file's coordinates were multiplied with.
        bounds: float64 (2, 3), the box in metres that holds all points by the file's header, or None.
        dropped: what was left out and how often.
    """

    xyz: Float64
    color: NDArray[np.uint8] | None = None
    normal: Float32 | None = None
    intensity: Float32 | None = None
    intensity_unit: str = "raw"
    classes: NDArray[np.int16] | None = None
    taxonomy: str = ASPRS
    ring: NDArray[np.uint16] | None = None
    return_number: NDArray[np.uint8] | None = None
    return_count: NDArray[np.uint8] | None = None
    time_offset: Float32 | None = None
    timestamp_ns: int | None = None
    world_crs: str | None = None
    scale: Scale = Scale()
    bounds: Float64 | None = None
    dropped: Mapping[str, int]

    def take(self, chosen: NDArray[np.bool_]) -> Cloud:
        """The chosen ones of the points; `dropped` stays that of the whole."""
        columns = (field.name for field in dataclass_fields(self) if field.name != "bounds")
        arrays: dict[str, Any] = {k: v[chosen] for k in columns if isinstance(v := getattr(self, k), np.ndarray)}
        return replace(self, **arrays)


def from_columns(
    table: Columns,
    scale: Scale,
    *,
    taxonomy: str | None = None,
    lost: NDArray[np.bool_] | None = None,
    unread: Iterable[str] = (),
    dropped: Counter[str] | None = None,
    text: bool = False,
) -> Cloud:
    """The cloud of a table whose columns x, y, z exist; case and CloudCompare's prefix `scalar_` do not matter.

    Args:
        table: name -> (N,) numbers.
        taxonomy: label set of the table's labels; None knows those of tables with LAS's return numbers only.
        lost: bool (N,), points whose bytes are lost.
        unread: names of columns that are not in the table.
        dropped: what was left out so far.
        text: the numbers were read from text.
    """
    dropped = Counter(dropped or {})
    named, unknown = _recognised(table)
    xyz = by_axis([table_axis(table, axis) for axis in "xyz"], scale=scale)
    if lost is not None and lost.any():
        dropped[LOST_BLOCKS] += int(lost.sum())
    else:
        lost = None
    if lost is not None or not (np.isfinite(xyz.min(initial=0)) and np.isfinite(xyz.max(initial=0))):
        kept = np.logical_and.reduce([np.isfinite(xyz[:, axis]) for axis in range(3)])
        kept = kept if lost is None else kept & ~lost
        dropped["non-finite points"] += len(kept) - int(kept.sum()) - dropped[LOST_BLOCKS]
        xyz, named = xyz[kept], {name: column[kept] for name, column in named.items()}
    _count_columns(dropped, [*unknown, *unread])
    single = {field: as_array(column) for field, column in named.items() if field not in THREES}
    intensity, unit = fields.intensity_floats(single.get("intensity"), dropped)
    labels = single.get("labels")
    known = taxonomy or (ASPRS if {"return_number", "return_count"} <= set(named) else None)
    if labels is not None and known is None:
        dropped[fields.UNKNOWN_LABELS] += len(labels)
    return Cloud(
        xyz=xyz,
        color=_color(named, dropped, text=text),
        normal=fields.unit_normals([named[name] for name in NORMAL if name in named], dropped),
        intensity=intensity,
        intensity_unit=unit,
        classes=None if labels is None or known is None else fields.class_ids(labels, known, dropped),
        taxonomy=known or ASPRS,
        ring=fields.whole_numbers(single.get("ring"), np.uint16, dropped, "rings"),
        return_number=fields.whole_numbers(single.get("return_number"), np.uint8, dropped, "return numbers"),
        return_count=fields.whole_numbers(single.get("return_count"), np.uint8, dropped, "numbers of returns"),
        time_offset=fields.time_floats(single.get("time"), dropped)[0],
        scale=scale,
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def as_array(column: NDArray[Any]) -> NDArray[Any]:
    """A column as an array of its own, in the machine's byte order: out of records, each look at it takes longer."""
    return column.astype(column.dtype.newbyteorder("="), order="C", copy=False)


def by_axis(columns: Sequence[NDArray[Any]], *, scale: Scale = Scale()) -> Float64:
    """Coordinates (N, 3) in metres, float64, of the columns x, y and z. In memory axis after axis: what asks for their
    bounds, or moves them, goes along the axes."""
    axes = np.empty((3, len(columns[0])))
    with np.errstate(over="ignore", invalid="ignore"):
        for axis, (column, unit) in enumerate(zip(columns, scale.xyz, strict=True)):
            axes[axis] = column
            if unit != 1:
                axes[axis] *= unit
    return axes.T


def table_axis(table: Columns, axis: str) -> NDArray[Any]:
    """The column of an axis, whatever the case of its name."""
    return next(column for name, column in table.items() if name.lower() == axis)


def _recognised(table: Columns) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Field -> column, and the names of the columns that are no field.

    A plain name goes before one with a prefix. What comes in threes is only a field where all three are there, and
    packed colours only where no others are. An alpha channel belongs to its colour, and no camera's colour has one.
    """
    names: dict[str, str] = {}
    for name in sorted(table, key=lambda name: name.lower().startswith(PREFIX)):
        names.setdefault(name.lower().removeprefix(PREFIX), name)
    chosen = {
        field: next(names[alias] for alias in aliases if alias in names)
        for field, aliases in ALIASES.items()
        if not names.keys().isdisjoint(aliases)
    }
    if "packed" in chosen and table[chosen["packed"]].dtype.itemsize < 4:
        del chosen["packed"]
    colours = [group for group in COLOURS if all(field in chosen for field in group)]
    whole = {*(colours[0] if colours else ()), *(NORMAL if all(field in chosen for field in NORMAL) else ())}
    for field in THREES - whole:
        chosen.pop(field, None)
    known = {*chosen.values(), *(name for name in table if name.lower() in ("x", "y", "z"))}
    known |= {names[alpha] for alpha in ("alpha", "a") if colours and alpha in names}
    return {field: table[name] for field, name in chosen.items()}, [name for name in table if name not in known]


def _count_columns(dropped: Counter[str], names: list[str]) -> None:
    if names:
        shown = ", ".join(name.encode("ascii", "replace").decode()[:40] for name in names[:SHOWN])
        dropped[f"columns that are not read ({shown}{', ...' if len(names) > SHOWN else ''})"] = len(names)


def _color(named: Columns, dropped: Counter[str], *, text: bool) -> NDArray[np.uint8] | None:
    if "red" in named:
        return fields.color_bytes(_stack(named, "red", "green", "blue"), dropped)
    if "packed" in named:
        return fields.color_bytes(fields.unpacked_colors(as_array(named["packed"]), dropped, text=text), dropped)
    return fields.splat_colors(_stack(named, "f_dc_0", "f_dc_1", "f_dc_2"), dropped)


def _stack(named: Columns, *names: str) -> NDArray[Any] | None:
    columns = [named[name] for name in names if name in named]
    return np.stack(columns, axis=1) if len(columns) == len(names) else None
